"""The processor: images and prompts to the model's inputs. Saved in the run, loaded by ``AutoProcessor``."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from polyvex.data.batches import pad_left
from polyvex.data.prompt import IMAGE, PromptEncoder
from polyvex.encoders.base import EncoderInputs, VisionEncoder
from polyvex.encoders.images import to_rgb
from polyvex.encoders.inputs import stack_inputs
from polyvex.errors import ContractError
from polyvex.hooks.manager import Registries, load_registries
from polyvex.model.config import PolyvexConfig
from polyvex.recipe.model import EncoderKeys
from polyvex.recipe.tables import read_table


class Inputs(BatchFeature):
    """A batch whose :meth:`to` also moves the pixels, which lie one level deeper."""

    def to(self, *args: Any, **kwargs: Any) -> "Inputs":
        """Move every tensor, and cast those with a fraction, as transformers' own batches do."""
        pixels = self.data.pop("pixel_values", None)
        super().to(*args, **kwargs)
        if pixels is not None:
            self.data["pixel_values"] = BatchFeature(pixels).to(*args, **kwargs).data
        return self


class PolyvexProcessor(ProcessorMixin):
    """Each encoder's own transform on the images, the recipe's template on the question, then the tokenizer.

    Args:
        encoders: tables of the encoders, as in the model's configuration.
        template: the recipe's prompt template.
        visual_tokens: placeholders per image.
        plugins: distribution that brought each encoder.
    """

    def __init__(
        self,
        tokenizer: Any,
        encoders: Sequence[dict[str, Any]] = (),
        template: str = "{image}{question}",
        visual_tokens: int = 1,
        plugins: dict[str, str] | None = None,
        registries: Registries | None = None,
        **kwargs: Any,
    ):
        self.encoders = list(encoders)
        self.template = template
        self.visual_tokens = visual_tokens
        self.plugins = plugins or {}
        super().__init__(tokenizer, chat_template=kwargs.pop("chat_template", None))
        self.image_token = IMAGE
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE)
        self._transforms = self._build_transforms(registries or load_registries())

    def _build_transforms(self, registries: Registries) -> dict[str, VisionEncoder]:
        """Encoders without weights (on the meta device): only their transforms are used."""
        transforms = {}
        for table in self.encoders:
            origin = self.plugins.get(table["name"], "")
            options = read_table(registries.encoders, table, keys=EncoderKeys, origin=origin)
            with torch.device("meta"):
                transforms[options.name] = registries.encoders[options.use](options)
        return transforms

    @property
    def prompts(self) -> PromptEncoder:
        """The one way from text to ids, for training and for generation."""
        return PromptEncoder(
            tokenizer=self.tokenizer,
            template=self.template,
            image_token_id=self.image_token_id,
            visual_tokens=self.visual_tokens,
        )

    def prompt(self, question: str, *, images: int = 1) -> str:
        """Put a question in the recipe's template; the result has one ``<image>`` per image."""
        return self.prompts.text(question, images=images)

    def question(self, question: str, images: Sequence[Image] = ()) -> BatchFeature:
        """Prepare one question about some images, or none; its text is taken as it is, even with ``<image>`` in it."""
        ids = self.prompts.question(question, images=len(images))
        data: dict[str, Any] = pad_left([ids], self.tokenizer.pad_token_id)
        if images:
            data["pixel_values"] = self.pixels(images)
        return Inputs(data)

    def __call__(  # type: ignore[override]
        self, images: Any = None, text: str | Sequence[str] = "", return_tensors: str | None = "pt", **kwargs: Any
    ) -> BatchFeature:
        """Prepare a batch for ``model.generate``, padded on the left.

        Args:
            images: one image, or the images of all prompts in order. Any PIL mode.
            text: prompts with one ``<image>`` for each image; :meth:`prompt` makes one from a question.

        Returns:
            ``input_ids``, ``attention_mask`` and, with images, ``pixel_values``: for each encoder by name a tensor
            [images 3 height width].

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
        ids = [self.prompts.ids(one) for one in texts]
        data: dict[str, Any] = pad_left(ids, self.tokenizer.pad_token_id)
        if pictures:
            data["pixel_values"] = self.pixels(pictures)
        return Inputs(data)

    def pixels(self, images: Sequence[Image]) -> dict[str, EncoderInputs]:
        """Each encoder's pixels of all images, by the encoder's own transform."""
        upright = [to_rgb(image) for image in images]
        return {
            name: stack_inputs([one.transform(image) for image in upright]) for name, one in self._transforms.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """What ``processor_config.json`` holds."""
        return {
            "processor_class": type(self).__name__,
            "encoders": self.encoders,
            "template": self.template,
            "visual_tokens": self.visual_tokens,
            "plugins": self.plugins,
        }

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that :meth:`__call__` returns."""
        return ["input_ids", "attention_mask", "pixel_values"]


AutoProcessor.register(PolyvexConfig, PolyvexProcessor, exist_ok=True)
