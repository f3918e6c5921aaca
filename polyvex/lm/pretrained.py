"""Any pretrained causal language model that transformers can load, from a local directory or the hub."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field
from safetensors import SafetensorError

from polyvex.errors import RecipeError
from polyvex.lm.base import LanguageModel, LMOptions
from polyvex.lm.tokenizer import ready, stop_ids
from polyvex.options import absolute
from polyvex.remote_code import WAY_OUT, remote_code
from polyvex.storage import check_readable

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


GENERATION = "generation_config.json"


class PretrainedOptions(LMOptions):
    """Options of the ``pretrained`` language model."""

    checkpoint: str = Field(description="Directory of a model saved by transformers, or its name on the hub.")
    revision: str = Field(default="main", description="Revision on the hub; a commit hash makes a run repeatable.")
    structure: dict[str, str | int | float | bool] = Field(
        default={},
        description="Its config.json in short: model_type, hidden_size and so on. Lets plan count before it is here; "
        "must be true.",
    )

    def located(self) -> Self:
        """A directory is made absolute; a name on the hub stays."""
        if not Path(self.checkpoint).is_dir():
            return self
        return self.model_copy(update={"checkpoint": absolute(self.checkpoint)})


class Pretrained(LanguageModel[PretrainedOptions]):
    """``AutoModelForCausalLM.from_pretrained``: dense or mixture-of-experts, Llama, Qwen, Mixtral and so on."""

    Options = PretrainedOptions
    summary = "any causal language model of transformers, from a directory or the hub"
    pretrained = True

    def config(self) -> "PreTrainedConfig":
        """The checkpoint's configuration; the recipe's ``structure`` while that is not on this machine.

        Raises:
            RecipeError: if neither is there, or they differ.
            StorageError: if this user has no permission to read a file of the checkpoint.
        """
        from transformers import AutoConfig

        check_readable(Path(self.options.checkpoint))  # a name on the hub is no folder here
        try:
            found = AutoConfig.from_pretrained(
                self.options.checkpoint, revision=self.options.revision, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            if not self.options.structure:
                raise self._missing(error) from None
            return self._told()
        if wrong := [key for key, value in self.options.structure.items() if getattr(found, key, None) != value]:
            pairs = ", ".join(f"{key} is {getattr(found, key, None)!r}" for key in sorted(wrong))
            raise RecipeError([f"[lm]: structure is not that of {self.options.checkpoint}, where {pairs}. Correct it"])
        return found

    def missing(self) -> str:
        """The command that fetches the checkpoint, if it is not on this machine."""
        from transformers.utils.hub import cached_file

        options = self.options
        if Path(options.checkpoint).is_dir():
            return ""
        try:
            cached_file(options.checkpoint, "config.json", revision=options.revision, local_files_only=True)
        except OSError:
            return f"hf download {options.checkpoint} --revision {options.revision}"
        return ""

    def _told(self) -> "PreTrainedConfig":
        """The configuration that the recipe tells itself."""
        from huggingface_hub.errors import StrictDataclassError
        from transformers import AutoConfig

        keys: dict[str, Any] = dict(self.options.structure)
        kind = keys.pop("model_type", None)
        try:
            return AutoConfig.for_model(str(kind), **keys)
        except (ValueError, TypeError, StrictDataclassError) as error:
            why = " ".join(str(error).split())[:300]
            raise RecipeError([f"[lm]: structure of model_type {kind!r} cannot be: {why}"]) from None

    def tokenizer(self, texts: Iterable[str]) -> "PreTrainedTokenizerBase":
        """The checkpoint's tokenizer; ``texts`` are not needed. A missing padding token becomes end-of-sequence."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                self.options.checkpoint, revision=self.options.revision, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise self._missing(error) from None
        return ready(tokenizer, source=self.options.checkpoint)

    def stop_ids(self, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
        """Tokens that end an answer, as ``generation_config.json`` lists them; see :meth:`LanguageModel.stop_ids`.

        Raises:
            RecipeError: if the file cannot be read.
        """
        from transformers import GenerationConfig
        from transformers.utils.hub import cached_file

        options = self.options
        try:
            path = cached_file(options.checkpoint, GENERATION, revision=options.revision)
        except OSError:  # the checkpoint has none
            return super().stop_ids(tokenizer)
        try:
            found = GenerationConfig.from_pretrained(Path(str(path)).parent)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise RecipeError([f"[lm]: {path} cannot be read: {error}"], code="generation-config") from None
        return stop_ids(tokenizer, self.config(), found)

    def load(self, config: "PreTrainedConfig") -> "PreTrainedModel":
        """The checkpoint's weights, in float32. Keys that are missing from it are an error, never random weights."""
        import torch
        from transformers import AutoModelForCausalLM

        try:
            loader: Any = AutoModelForCausalLM
            model, report = loader.from_pretrained(
                self.options.checkpoint,
                revision=self.options.revision,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise self._missing(error) from None
        if report["missing_keys"]:
            missing = ", ".join(sorted(report["missing_keys"])[:5])
            raise RecipeError([f"[lm]: {self.options.checkpoint} lacks weights: {missing}. It would start at random"])
        return model

    def _missing(self, error: Exception) -> RecipeError:
        if found := remote_code(self.options.checkpoint):
            return RecipeError(
                [f"[lm]: {self.options.checkpoint}: {', '.join(found)} asks to run code (auto_map). {WAY_OUT}"],
                code="remote-code",
            )
        return RecipeError(
            [
                f"[lm]: cannot load '{self.options.checkpoint}'. Expected a directory written by save_pretrained, or a "
                f"name on the hub while it can be reached. transformers says: {' '.join(str(error).split())}"
            ]
        )
