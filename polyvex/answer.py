"""Ask a trained model about an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from polyvex.encoders.images import open_image
from polyvex.errors import RunError
from polyvex.hooks.manager import Registries, load_registries
from polyvex.rundir import open_run

if TYPE_CHECKING:
    from polyvex.model import PolyvexForConditionalGeneration, PolyvexProcessor

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
            DataError: if an image cannot be read.
        """
        pictures = [_picture(one) for one in _as_list(image)]
        text = self.processor.prompt(question, images=len(pictures))
        inputs = self.processor(pictures or None, text).to(self.model.device)
        model: Any = self.model
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        text = self.processor.tokenizer.decode(new, skip_special_tokens=True).strip()
        return Answer(text=text, ids=new.tolist())


def load(run: str | Path, *, registries: Registries | None = None) -> Assistant:
    """Load a finished run.

    Raises:
        RunError: if there is no run at ``run``, or it is not finished.
        PluginError: if a plugin that it needs is not installed.
    """
    from polyvex.model import PolyvexForConditionalGeneration, PolyvexProcessor

    directory = open_run(run)
    if not directory.finished:
        raise RunError(f"{run} is not finished. Go on with: polyvex train RECIPE --out {run}")
    registries = registries or load_registries()
    model = PolyvexForConditionalGeneration.from_pretrained(directory.path, registries=registries)
    processor = PolyvexProcessor.from_pretrained(directory.path, registries=registries)
    return Assistant(model=model.eval(), processor=processor)


def _as_list(image: Picture | Sequence[Picture] | None) -> list[Picture]:
    if image is None:
        return []
    return [image] if isinstance(image, str | Path | Image.Image) else list(image)


def _picture(image: Picture) -> Image.Image:
    return image if isinstance(image, Image.Image) else open_image(image)
