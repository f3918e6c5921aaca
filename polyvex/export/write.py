"""Write a run's language model as a family's directory, and compare what was written with the run."""

import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from polyvex.adapters import merged
from polyvex.answer import load
from polyvex.errors import ExportError, ParityError, RunError
from polyvex.export.card import card
from polyvex.export.families import dense_layers, family_named
from polyvex.export.reasons import reasons
from polyvex.export.tokens import check_tokenizer, save_tokenizer, tokenizer_reasons
from polyvex.export.weights import in_family
from polyvex.hooks.manager import Registries
from polyvex.model.size import bytes_of
from polyvex.model.stored import loading
from polyvex.rundir import open_run
from polyvex.storage import PART, flush, share, space_for, write_text

TOLERANCE = 1e-4
"""Largest difference of logits, as a share of the largest logit, that adding in another order may explain."""

ROWS, LENGTH = 4, 32
"""Random texts that are compared, and their tokens; each is one more place where two experts may be nearly level."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how far its logits are from the run's: ``difference`` at most, the largest is ``scale``."""

    run: str
    out: str
    family: str
    parameters: int
    files: list[str]
    left_out_tokens: list[str]
    difference: float
    scale: float

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"exported the language model of {self.run} as {self.family}: {self.out} ({len(self.files)} files, "
            f"{self.parameters:,} parameters)",
            f"loaded back with transformers: logits differ by at most {self.difference:.1e}, the largest is "
            f"{self.scale:.3g}",
            "it is the language model alone; encoders, fusion and position scheme stay in the run",
        ]
        if self.left_out_tokens:
            lines.append(
                f"left out of the tokenizer: {', '.join(self.left_out_tokens)} (the embeddings have no row for it)"
            )
        return "\n".join(lines)


def export_run(
    run: str | Path, to: str, out: str | Path, *, copy_dense: bool = False, registries: Registries | None = None
) -> Exported:
    """Write the language model of a finished run, so that plain transformers loads it and says the same.

    ``out`` appears whole, once it was loaded back and compared, or not at all.

    Args:
        to: name of the family.
        copy_dense: write dense layers as equal experts, where the family has no dense ones; exact, but larger.

    Raises:
        ExportError: with every reason why the family cannot express the model; nothing is written.
        ParityError: if what was written says something else than the run; it is taken away again.
        RunError: if there is no finished run at ``run``, or ``out`` is in use.
        StorageError: if the disk is full.
    """
    family, folder = family_named(to), Path(out)
    _check_free(folder)
    assistant = load(run, registries=registries)
    # The processor's own tokenizer remembers what it was loaded with, and would write that out.
    lm = merged(assistant.model.lm)
    with loading(Path(run)):
        tokenizer = AutoTokenizer.from_pretrained(run, trust_remote_code=False)
    rows = lm.get_input_embeddings().weight.shape[0]
    if found := [*reasons(lm, family, copy_dense=copy_dense), *tokenizer_reasons(tokenizer, rows)]:
        raise ExportError(found, what=f"{run} cannot be exported as {family.name}")
    made = in_family(lm, family)
    made.generation_config = _generation(assistant.model)
    with _whole(folder) as part:
        with space_for(folder, needed=bytes_of(made)):
            made.save_pretrained(part)
        with space_for(folder, needed=0):
            dropped = save_tokenizer(tokenizer, part, rows)
        gap, scale = compare(lm, part)
        check_tokenizer(tokenizer, part, rows)
        copied = [] if family.dense_layers else list(dense_layers(lm))
        recipe = tomllib.loads(open_run(run).recipe.read_text(encoding="utf-8"))
        text = card(recipe, family, made, copied=copied, dropped=dropped, gap=gap, scale=scale)
        write_text(part / "README.md", text)
        files = sorted(path.name for path in part.iterdir())
        share(part)
        flush(part)
    return Exported(
        run=str(run),
        out=str(out),
        family=family.name,
        parameters=made.num_parameters(),
        files=files,
        left_out_tokens=dropped,
        difference=gap,
        scale=scale,
    )


def compare(lm: Any, folder: Path) -> tuple[float, float]:
    """Load a model as anybody would, and compare its logits with a language model's, on random tokens in float32.

    Returns:
        The largest difference, and the largest logit.

    Raises:
        ParityError: if the difference is above :data:`TOLERANCE`, or not a number.
    """
    loader: Any = AutoModelForCausalLM
    found, report = loader.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
    )
    if lost := sorted(map(str, [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]])):
        raise ParityError(
            f"transformers does not find the exported weights in their places: {', '.join(lost[:5])}. They were taken "
            f"away again; please report it, with the version of transformers"
        )
    length = min(LENGTH, lm.config.max_position_embeddings)
    vocabulary = lm.get_input_embeddings().weight.shape[0]
    ids = torch.randint(vocabulary, (ROWS, length), generator=torch.Generator().manual_seed(0))
    expected, got = logits_of(lm.float(), ids), logits_of(found, ids)
    gap, scale = (expected - got).abs().max().item(), expected.abs().max().item()
    if not gap <= TOLERANCE * scale:
        raise ParityError(
            f"the exported model's logits differ by {gap:.1e} from the run's, expected at most {TOLERANCE * scale:.1e}."
            f" It was taken away again. A router that scores two experts exactly alike, because it was hardly trained, "
            f"can do this; otherwise please report it"
        )
    return gap, scale


@torch.inference_mode()
def logits_of(lm: Any, ids: Tensor) -> Float[Tensor, "rows length vocabulary"]:
    """What a language model says to whole rows of tokens, with positions from 0."""
    return lm.eval()(input_ids=ids.to(lm.device), attention_mask=torch.ones_like(ids, device=lm.device)).logits.cpu()


def _generation(model: Any) -> GenerationConfig:
    """How the run generates; it suppresses ``<image>`` only where the embeddings have a row for it."""
    told = model.generation_config
    return GenerationConfig(
        bos_token_id=model.lm.config.bos_token_id,
        eos_token_id=told.eos_token_id,
        pad_token_id=told.pad_token_id,
        suppress_tokens=told.suppress_tokens,
    )


def _check_free(folder: Path) -> None:
    if folder.is_file():
        raise RunError(f"{folder} is a file, expected a folder or nothing. Choose another --out")
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty. Choose another --out, or empty it")


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` to write into, which takes its place at the end; gone if anything fails."""
    part = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}{PART}")
    with space_for(folder):
        part.mkdir(parents=True)
    try:
        with space_for(folder):
            yield part
        if folder.exists():
            folder.rmdir()  # it is empty, or this fails; not every system replaces it
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
