"""Ask a trained model about an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from polyvex.assemble import use_attention
from polyvex.encoders.images import open_image
from polyvex.errors import DataError, RunError, WeightsError
from polyvex.evaluation.evaluate import before_end, end_ids
from polyvex.hooks.manager import Registries, load_registries
from polyvex.records.files import read_toml
from polyvex.rundir import open_run

if TYPE_CHECKING:
    from polyvex.model import PolyvexForConditionalGeneration, PolyvexProcessor

UNLIMITED = 1 << 30
"""Room of a language model that names no longest context."""

Picture = str | Path | Image.Image


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer as text, and the token ids that were generated."""

    text: str
    ids: list[int]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class Assistant:
    """A model with its processor."""

    model: "PolyvexForConditionalGeneration"
    processor: "PolyvexProcessor"

    @torch.inference_mode()
    def ask(self, image: Picture | Sequence[Picture] | None, question: str, *, max_new_tokens: int = 64) -> Answer:
        """Answer a question about an image, several images, or none; greedy, so always the same.

        Raises:
            DataError: if an image cannot be read, the question is empty, or both are longer than the context.
        """
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"the question is {question!r}, expected some text")
        pictures = [_picture(one) for one in _as_list(image)]
        inputs = self.processor.question(question, pictures).to(self.model.device)
        model: Any = self.model
        room = self._room(inputs["input_ids"].shape[1], images=len(pictures))
        output = model.generate(**inputs, max_new_tokens=min(max_new_tokens, room), do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        answer = before_end(new.tolist(), end_ids(model))
        text = self.processor.tokenizer.decode(answer, skip_special_tokens=True).strip()
        return Answer(text=text, ids=new.tolist())

    def _room(self, length: int, *, images: int) -> int:
        """Tokens that the context has left for the answer."""
        context = self.model.context_length
        if context is None:
            return UNLIMITED
        if length >= context:
            raise DataError(
                f"the question takes {length} tokens with its {images} images, the language model's context holds "
                f"{context}. Ask a shorter one, or show fewer images"
            )
        return context - length


def load(run: str | Path, *, registries: Registries | None = None) -> Assistant:
    """Load a finished run.

    Raises:
        RunError: if there is no run at ``run``, it is not finished, its files changed since (``changed-files``), or it
            asks to run code (``remote-code``).
        PluginError: if a plugin that it needs is not installed.
    """
    from polyvex.model import PolyvexForConditionalGeneration, PolyvexProcessor
    from polyvex.model.finite import not_finite
    from polyvex.model.stored import loading

    directory = open_run(run)
    if not directory.finished:
        raise RunError(f"{run} is not finished. Go on with: polyvex train RECIPE --out {run}")
    directory.check_finished()
    registries = registries or load_registries()
    with loading(directory.path):
        model = PolyvexForConditionalGeneration.from_pretrained(directory.path, registries=registries)
        processor = PolyvexProcessor.from_pretrained(directory.path, registries=registries)
    if spoilt := not_finite(model):
        raise WeightsError(
            f"{run}: {', '.join(spoilt[:4])} hold numbers that are not finite, so what it says means nothing. Train it "
            f"again, or take another run"
        )
    if directory.recipe.exists():  # transformers does not store which attention was used
        table = read_toml(directory.recipe).get("lm")
        use_attention(model.lm, table.get("attention", "auto") if isinstance(table, dict) else "auto")
    return Assistant(model=model.eval(), processor=processor)


def _as_list(image: Picture | Sequence[Picture] | None) -> list[Picture]:
    if image is None:
        return []
    return list(image) if isinstance(image, Sequence) and not isinstance(image, str) else [image]  # type: ignore[list-item]


def _picture(image: Picture) -> Image.Image:
    if not isinstance(image, str | Path | Image.Image):
        raise DataError(f"an image is {type(image).__name__}, expected a path or a PIL image")
    return image if isinstance(image, Image.Image) else open_image(image)
