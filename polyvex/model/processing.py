"""The processor: images and prompts to the model's inputs. Saved in the run, loaded by ``AutoProcessor``."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from polyvex.data.batches import pad_left
from polyvex.data.prompt import IMAGE, Images, PromptEncoder
from polyvex.encoders.base import EncoderInputs, VisionEncoder
from polyvex.encoders.images import size_of, to_rgb
from polyvex.encoders.inputs import stack_inputs
from polyvex.encoders.views import EncoderViews
from polyvex.errors import ContractError
from polyvex.hooks.manager import Registries, load_registries
from polyvex.layouts import Arrangement, ImageLayouts, RunViews
from polyvex.model.config import PolyvexConfig
from polyvex.recipe.tables import read_encoder
from polyvex.tokens import Grid, TokenShape


class Inputs(BatchFeature):
    """A batch whose :meth:`to` also moves the pixels, which lie one or two levels deeper."""

    def to(self, *args: Any, **kwargs: Any) -> "Inputs":
        """Move every tensor, and cast those with a fraction, as transformers' own batches do."""
        pixels = self.data.pop("pixel_values", None)
        super().to(*args, **kwargs)
        if pixels is not None:
            self.data["pixel_values"] = {name: _moved(values, *args, **kwargs) for name, values in pixels.items()}
        return self


def _moved(values: EncoderInputs, *args: Any, **kwargs: Any) -> EncoderInputs:
    if isinstance(values, Tensor):
        return BatchFeature({"pixels": values}).to(*args, **kwargs).data["pixels"]
    return BatchFeature(dict(values)).to(*args, **kwargs).data


class PolyvexProcessor(ProcessorMixin):
    """Each encoder's own transform on the images, the recipe's template on the question, then the tokenizer.

    Args:
        encoders: tables of the encoders, as in the model's configuration.
        template: the recipe's prompt template.
        runs: the runs of tokens that one tile of an image gives behind the fusion: ``source`` (index of the encoder),
            ``tokens``, and ``grid`` as [rows, columns] or None.
        plugins: distribution that brought each encoder.
        arrangement: how runs come together, as :class:`~polyvex.layouts.Arrangement` has it.
        separator_ids: tokens of the text between two runs, if there is one.
        end_ids: tokens that follow an answer in training; the end of the sequence if empty.
        stop_ids: tokens that stop generation; the last of ``end_ids`` if empty.
    """

    def __init__(
        self,
        tokenizer: Any,
        encoders: Sequence[dict[str, Any]] = (),
        template: str = "{image}{question}",
        runs: Sequence[dict[str, Any]] = (),
        plugins: dict[str, str] | None = None,
        registries: Registries | None = None,
        arrangement: dict[str, Any] | None = None,
        separator_ids: Sequence[int] = (),
        end_ids: Sequence[int] = (),
        stop_ids: Sequence[int] = (),
        **kwargs: Any,
    ):
        self.encoders = list(encoders)
        self.template = template
        self.runs = list(runs)
        self.plugins = plugins or {}
        self.arrangement = arrangement or {}
        self.separator_ids = list(separator_ids)
        self.end_ids = list(end_ids) or [tokenizer.eos_token_id]
        self.stop_ids = list(stop_ids) or self.end_ids[-1:]
        super().__init__(tokenizer, chat_template=kwargs.pop("chat_template", None))
        self.image_token = IMAGE
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE)
        if self.encoders and not self.runs:
            raise ContractError(
                "the processor has encoders but no runs of visual tokens. Was it stored by an earlier polyvex? Then "
                "train anew"
            )
        self._views = self._read_views(registries or load_registries())
        self._transforms = {name: _without_weights(views) for name, views in self._views.items()}
        self.layouts = ImageLayouts(
            [_run(run, list(self._views.values())) for run in self.runs], Arrangement(**self.arrangement)
        )

    def _read_views(self, registries: Registries) -> dict[str, EncoderViews]:
        views = {}
        for table in self.encoders:
            origin = self.plugins.get(table["name"], "")
            options = read_encoder(registries, table, origin=origin, plugins=self.plugins)
            kind = registries.encoders[options.use]
            views[options.name] = EncoderViews(kind=kind, options=options, tiling=options.tiling)
        return views

    @property
    def encoder_names(self) -> list[str]:
        """Names of the encoders, in order."""
        return list(self._views)

    @property
    def visual_tokens(self) -> int | None:
        """Placeholders per image; None if they depend on the image."""
        return self.layouts.tokens() if self.layouts.fixed else None

    def count_tokens(self, images: Sequence[Image]) -> Images:
        """What a prompt about ``images`` needs: their number, or the visual tokens of each."""
        if self.layouts.fixed:
            return len(images)
        return [self.layouts.tokens(size_of(image)) for image in images]

    @property
    def prompts(self) -> PromptEncoder:
        """The one way from text to ids, for training and for generation."""
        return PromptEncoder(
            tokenizer=self.tokenizer,
            template=self.template,
            image_token_id=self.image_token_id,
            visual_tokens=self.visual_tokens,
            end_ids=tuple(self.end_ids),
        )

    def prompt(self, question: str, *, images: int = 1) -> str:
        """Put a question in the recipe's template; the result has one ``<image>`` per image."""
        return self.prompts.text(question, images=images)

    def question(self, question: str, images: Sequence[Image] = ()) -> BatchFeature:
        """Prepare one question about some images, or none; its text is taken as it is, even with ``<image>`` in it."""
        ids = self.prompts.question(question, images=self.count_tokens(images))
        return Inputs({**pad_left([ids], self.tokenizer.pad_token_id), **self.image_inputs(images)})

    def __call__(  # type: ignore[override]
        self, images: Any = None, text: str | Sequence[str] = "", return_tensors: str | None = "pt", **kwargs: Any
    ) -> BatchFeature:
        """Prepare a batch for ``model.generate``, padded on the left.

        Args:
            images: one image, or the images of all prompts in order. Any PIL mode.
            text: prompts with one ``<image>`` for each image; :meth:`prompt` makes one from a question.

        Returns:
            ``input_ids``, ``attention_mask`` and, with images, ``pixel_values``: for each encoder by name a tensor
            [tiles 3 height width]; an image without tiling is one tile. ``image_sizes`` [images 2] where the visual
            tokens depend on them.

        Raises:
            ContractError: if the number of images and of ``<image>`` marks differ.
        """
        if return_tensors != "pt" or kwargs.pop("padding", True) is False:
            raise ContractError("the processor returns padded torch tensors: return_tensors='pt', padding=True")
        if kwargs:
            raise ContractError(
                f"the processor has no option {', '.join(sorted(kwargs))}; each encoder has its own transform"
            )
        texts = [text] if isinstance(text, str) else list(text)
        pictures = [] if images is None else [images] if isinstance(images, Image) else list(images)
        marks = sum(one.count(IMAGE) for one in texts)
        if marks != len(pictures):
            raise ContractError(
                f"got {len(pictures)} images for {marks} '{IMAGE}' marks. Make each text with "
                f"processor.prompt(question, images=n), or use processor.question(question, images)"
            )
        rest = iter(self.prompts.places(self.count_tokens(pictures)))
        ids = [self.prompts.ids(one, images=[next(rest) for _ in range(one.count(IMAGE))]) for one in texts]
        return Inputs({**pad_left(ids, self.tokenizer.pad_token_id), **self.image_inputs(pictures)})

    def image_inputs(self, images: Sequence[Image]) -> dict[str, Any]:
        """What the model needs of some images; nothing if there are none."""
        if not images:
            return {}
        inputs: dict[str, Any] = {"pixel_values": self.pixels(images)}
        if not self.layouts.fixed:
            inputs["image_sizes"] = torch.tensor([size_of(image) for image in images])
        return inputs

    def pixels(self, images: Sequence[Image], *, encoders: Sequence[str] | None = None) -> dict[str, EncoderInputs]:
        """Each encoder's pixels of all images, tile after tile, by the encoder's own transform.

        Args:
            encoders: only of these, by name; of all if not given.
        """
        upright = [to_rgb(image) for image in images]
        return {
            name: stack_inputs([one for image in upright for one in self._views[name].inputs(encoder, image)])
            for name, encoder in self._transforms.items()
            if encoders is None or name in encoders
        }

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> "PolyvexProcessor":  # type: ignore[override]
        """Load as transformers does, but never run code that the folder brings."""
        kwargs["trust_remote_code"] = False
        parent: Any = super()
        return parent.from_pretrained(pretrained_model_name_or_path, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """What ``processor_config.json`` holds."""
        return {
            "processor_class": type(self).__name__,
            "encoders": self.encoders,
            "template": self.template,
            "runs": self.runs,
            "plugins": self.plugins,
            "arrangement": self.arrangement,
            "separator_ids": self.separator_ids,
            "end_ids": self.end_ids,
            "stop_ids": self.stop_ids,
        }

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that :meth:`__call__` returns."""
        return ["input_ids", "attention_mask", "pixel_values", "image_sizes"]


def _without_weights(views: EncoderViews) -> VisionEncoder:
    """The encoder on the meta device: only its transform is used."""
    with torch.device("meta"):
        return views.kind(views.options)


def stored_runs(layouts: ImageLayouts) -> list[dict[str, Any]]:
    """The runs of ``layouts`` as a processor keeps them."""
    return [
        {
            "source": run.source,
            "tokens": run.tile.tokens,
            "grid": [run.tile.grid.rows, run.tile.grid.cols] if run.tile.grid else None,
        }
        for run in layouts.runs
    ]


def _run(stored: dict[str, Any], views: list[EncoderViews]) -> RunViews:
    grid = Grid(rows=stored["grid"][0], cols=stored["grid"][1]) if stored["grid"] else None
    tile = TokenShape(tokens=stored["tokens"], dim=0, grid=grid)  # the width does not matter for counting
    return RunViews(source=stored["source"], tile=tile, views=views[stored["source"]])


AutoProcessor.register(PolyvexConfig, PolyvexProcessor, exist_ok=True)
