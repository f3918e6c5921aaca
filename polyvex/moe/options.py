"""What a recipe says of experts: which layers have them, how many, and what they start as."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from polyvex.moe.interface import PREFIX
from polyvex.options import Options

LayerChoice = Literal["first_half", "second_half", "sparse", "dense"]
BACKEND = rf"^(auto|loop|grouped_mm|{re.escape(PREFIX)}[a-z0-9_]+)$"
Count = Annotated[int, Field(ge=2)]


class MoEOptions(Options):
    """What becomes a mixture of experts, and how. The router's own table is ``[moe.router]``."""

    num_experts: Count | Annotated[list[Count], Field(min_length=1)] = Field(
        default=4, description="Experts per layer; one number for all layers, or one for each that has them."
    )
    layers: LayerChoice | list[int] = Field(
        default="sparse",
        description="Which layers: first_half, second_half, sparse (0, 2, 4, …), dense (all), or a list of indices.",
    )
    beside: Literal["none", "shared", "residual"] = Field(
        default="none",
        description="A network that works on every token beside the experts, and starts as the trained one: shared "
        "adds it to what they say (DeepSeekMoE), residual weighs the two for each token (DeepSpeed's residual MoE).",
    )
    start: Literal["copy", "drop"] = Field(
        default="copy",
        description="What experts start as: copies of the trained network, or copies that each forgot a random part "
        "(Drop-Upcycling).",
    )
    drop: float | None = Field(
        default=None, gt=0, lt=1, description="With start = drop, the share that is forgotten; half of it if left out."
    )
    granularity: int = Field(
        default=1,
        ge=1,
        description="Cut the trained network into so many parts, each an expert by itself; num_experts and the "
        "router's k count parts.",
    )
    non_causal: bool = Field(
        default=False,
        description="Take a router that lets the language model see later tokens while it trains: expert_choice or "
        "soft. When it writes, there are none.",
    )
    backend: str = Field(
        default="auto",
        json_schema_extra={"pattern": BACKEND},
        description="How experts are computed: auto (by their shape), loop, grouped_mm, or transformers.NAME, a "
        "function of transformers' experts interface such as transformers.batched_mm.",
    )

    @field_validator("backend")
    @classmethod
    def _is_one(cls, backend: str) -> str:
        if not re.fullmatch(BACKEND, backend):
            raise ValueError(f"auto, loop, grouped_mm, or {PREFIX}NAME")
        return backend

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.drop is not None and self.start != "drop":
            raise ValueError(f"drop = {self.drop:g} has no effect without start = 'drop'; set that, or take drop out")
        if bad := [count for count in self.counts if count % self.granularity]:
            raise ValueError(
                f"num_experts {bad[0]} is no multiple of granularity {self.granularity}, so a copy would lack parts"
            )
        return self

    @property
    def forgotten(self) -> float:
        """The share of an expert that ``start = "drop"`` makes anew."""
        return 0.5 if self.drop is None else self.drop

    @property
    def counts(self) -> list[int]:
        """The numbers of experts that are named, one or one for each layer."""
        return self.num_experts if isinstance(self.num_experts, list) else [self.num_experts]

    def of_layers(self, chosen: list[int]) -> list[int]:
        """The number of experts of each chosen layer.

        Raises:
            ValueError: if there is a number for each layer, but not as many as layers.
        """
        if not isinstance(self.num_experts, list):
            return [self.num_experts] * len(chosen)
        if len(self.num_experts) != len(chosen):
            layers = ", ".join(map(str, chosen))
            raise ValueError(f"num_experts has {len(self.num_experts)} numbers for {len(chosen)} layers ({layers})")
        return self.num_experts


def chosen_layers(choice: LayerChoice | list[int], count: int) -> list[int]:
    """Indices of the layers that become sparse, of ``count`` in all; names as in MoE-LLaVA's code.

    Raises:
        ValueError: if a listed index is out of range, or listed twice.
    """
    named = {
        "first_half": range(count // 2),
        "second_half": range(count // 2, count),
        "sparse": range(0, count, 2),
        "dense": range(count),
    }
    if isinstance(choice, str):
        return list(named[choice])
    if not choice:
        raise ValueError("moe layers is empty, so no layer would become sparse. Name layers, or leave [moe] out")
    if bad := [index for index in choice if not 0 <= index < count]:
        raise ValueError(f"moe layers {bad} are out of range: the language model has layers 0 to {count - 1}")
    if len(set(choice)) != len(choice):
        raise ValueError(f"moe layers {choice} name a layer twice")
    return sorted(choice)
