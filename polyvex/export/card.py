"""README.md of an export: where it came from and what it is, in plain facts."""

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomlkit

from polyvex.export.families import Family
from polyvex.printable import markdown, one_line, printable

CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
---

# {name}

The language model of a vision-language model that was trained with polyvex {version}, recipe {name}. It is the
language model alone: encoders, fusion and position scheme are not here, so it sees no images.

- family: `{family}` (`{architecture}` of transformers), {parameters:,} parameters
- experts: {num_experts} in a layer, {k} for each token{copied}
- compared with the language model of the run: logits differ by at most {gap:.1e}, where the largest is {scale:.3g}
  (float32, random tokens)
{tokens}
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

## Where it came from

The tables of the recipe that made the language model:

{tables}
"""


def card(
    recipe: Mapping[str, Any],
    family: Family,
    model: Any,
    *,
    copied: list[int],
    dropped: list[str],
    gap: float,
    scale: float,
) -> str:
    """The text.

    Args:
        recipe: the run's, as plain data; it need not be valid on this machine any more.
        copied: layers that were dense.
        dropped: tokens that the tokenizer lost.
        gap: largest difference of logits.
        scale: the largest logit.
    """
    config = model.config
    layers, have = ("layers", "have") if len(copied) > 1 else ("layer", "has")
    where = f"{layers} {', '.join(map(str, copied))}"
    return CARD.format(
        name=markdown(recipe["name"]),
        version=version("polyvex"),
        family=family.name,
        architecture=type(model).__name__,
        parameters=model.num_parameters(),
        num_experts=config.num_local_experts,
        k=config.num_experts_per_tok,
        copied=f"; {where} had none in the run, and {have} equal copies of a network here" if copied else "",
        gap=gap,
        scale=scale,
        tokens=f"- left out of the tokenizer, since the embeddings lack it: `{'`, `'.join(map(_code, dropped))}`\n"
        if dropped
        else "",
        tables=_fenced(tomlkit.dumps({name: _public(recipe[name]) for name in ("lm", "moe") if name in recipe})),
    )


def _public(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table without files and folders of the machine that trained."""
    return {key: value for key, value in table.items() if not (isinstance(value, str) and Path(value).is_absolute())}


def _code(text: str) -> str:
    """Text for a code span: it cannot end the span."""
    return one_line(text).replace("`", "'")


def _fenced(text: str) -> str:
    """TOML as a code block, with a fence longer than any inside."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}toml\n{printable(text)}{fence}"
