"""The parts of a recipe that do not depend on plugins, and the shape of the whole.

``model.py`` derives from :class:`Recipe` the class that also checks the tables of components.
"""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from polyvex.moe.losses import Counted, Layers
from polyvex.moe.options import MoEOptions
from polyvex.options import LocalPath, Options

NAME = r"^[a-z0-9][a-z0-9._-]*$"
"""What a recipe may be called."""

Rate = Annotated[float, Field(gt=0, le=1)]

PARTS = (
    *("connector", "encoders", "lm", "lm.embeddings", "lm.attention", "lm.ffn", "lm.moe", "lm.head"),
    *("lm.lora", "lm.partial_lora"),
)
"""What a stage may train by name; anything else must be a pattern of parameter names with a ``*``."""


No = Literal[False]


def false_is_none(table: Any) -> BeforeValidator:
    """Lets ``false`` stand for a table that is left out: TOML has no null, and an axis needs one beside tables."""
    return BeforeValidator(_false_is_none, json_schema_input_type=table | No)


def _false_is_none(value: Any) -> Any:
    return None if value is False else value


class MoETable(MoEOptions):
    """``[moe]``: the language model's feed-forward layers become experts. Leave it out for a dense model."""

    router: Any = Field(description="The router's table: use = … and its options.")


CHAT = "chat"
"""The template that a language model's tokenizer brings."""

DATE = "2026-01-01"
"""The date in chat templates that write one, unless the recipe sets another."""


class PromptTable(Options):
    """``[prompt]``: how a question becomes text."""

    template: str = Field(
        default="{image}Question: {question}\nAnswer: ",
        description="Text before the answer; {image} is where the visual tokens go, {question} the question. chat "
        "takes the form of the language model's own chats.",
    )

    image_place: Literal["template", "before", "between", "after"] = Field(
        default="template",
        description="Where images go: where {image} stands, before all text, between the template's first text and the "
        "question, or right after the question.",
    )

    system: str = Field(default="", description="With the chat template: the content of a system turn; none if empty.")
    chat_template: str = Field(
        default="", description="With the chat template: its name, if the tokenizer has several; the default if empty."
    )
    date: str = Field(
        default=DATE,
        description="With the chat template: the date (YYYY-MM-DD) that a template writes instead of today's, so that "
        "two runs of a recipe are equal.",
    )

    @field_validator("date", mode="before")
    @classmethod
    def _is_a_date(cls, value: Any) -> Any:
        text = value.isoformat() if type(value) is date else value
        try:
            correct = date.fromisoformat(text).isoformat() == text
        except (TypeError, ValueError):
            correct = False
        if not correct:
            raise ValueError(f'a day of the calendar, such as "{DATE}"')
        return text

    @model_validator(mode="after")
    def _chat_keys_need_chat(self) -> Self:
        given = {
            "system": self.system,
            "chat_template": self.chat_template,
            "date": "" if self.date == DATE else self.date,
        }
        if self.template != CHAT and (keys := [key for key, value in given.items() if value]):
            raise ValueError(f"{', '.join(keys)} has no effect unless template is '{CHAT}'. Remove it, or take that")
        return self

    @model_validator(mode="after")
    def _between_has_two_sides(self) -> Self:
        first = self.template.replace("{image}", "").partition("{question}")[0]
        if self.image_place == "between" and self.template != CHAT and not first.strip():
            raise ValueError(
                "image_place = 'between' stands between the template's first text and the question, but there is no "
                "text before the question. Take 'before', or write some"
            )
        return self

    @field_validator("template")
    @classmethod
    def _has_both(cls, template: str) -> str:
        for mark in ("{image}", "{question}") if template != CHAT else ():
            if template.count(mark) != 1:
                raise ValueError(f"template must contain {mark} once, got {template.count(mark)} times")
        return template


class LossTable(Options):
    """``[loss]``: weights of the auxiliary losses in the total."""

    load_balance: float = Field(default=0.01, ge=0, description="Weight of the load-balancing loss (MoE-LLaVA: 0.01).")
    router_z: float = Field(default=0.0, ge=0, description="Weight of the router z-loss (ST-MoE: 0.001).")
    importance: float = Field(
        default=0.0, ge=0, description="Weight of the importance loss, CV² of summed weights (Shazeer: 0.1)."
    )
    load: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the load loss, CV² of estimated loads (Shazeer: 0.1); for routers that estimate them.",
    )
    balance: Counted = Field(
        default="first",
        description="Choices that count for load_balance: first counts each token's best expert (MoE-LLaVA, Switch), "
        "all every expert that it asks for (Mixtral, Megatron).",
    )
    balance_layers: Layers = Field(
        default="sum",
        description="sum adds the load_balance of all layers (MoE-LLaVA); pooled computes it once over the tokens of "
        "all layers. With balance = all, pooled times the experts per token is the loss of transformers.",
    )


class Stage(Options):
    """``[[stages]]``: a stretch of training with its own trainable parts."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name; also its folder in the run.")
    trains: list[str] = Field(
        min_length=1,
        description="Parts that train: connector, encoders (or encoders.NAME), lm, lm.embeddings, lm.attention, "
        "lm.ffn, lm.moe, lm.head, lm.lora, lm.partial_lora, or patterns of parameter names with *. All else is frozen.",
    )
    steps: int = Field(ge=1, description="Optimizer steps.")
    batch_size: int = Field(default=32, ge=1, description="Samples per optimizer step and process.")
    accumulate: int = Field(default=1, ge=1, description="Forward passes that one batch is cut into, to save memory.")
    lr: Rate | dict[str, Rate] = Field(
        default=1e-3, description="Peak learning rate; or a table with one rate for each entry of trains."
    )
    warmup: int = Field(default=0, ge=0, description="Steps over which the learning rate rises from zero.")
    schedule: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="How the rate falls after.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's weight decay.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this norm.")
    upcycle: bool = Field(default=False, description="Turn FFNs into experts, as [moe] says, before this stage.")
    images: bool = Field(default=True, description="False trains on the text alone: no image, no placeholder.")


class StartTable(Options):
    """``[start]``: begin with the weights of a finished stage of another run, and with its tokenizer."""

    run: LocalPath = Field(min_length=1, description="Folder of the other run.")
    stage: str = Field(default="", description="A finished stage of it; the last one that is finished if empty.")


class EvaluationTable(Options):
    """``[evaluation]``: how answers are made and scored."""

    metric: str = Field(default="exact_match", description="Metric that scores each answer; see the registry.")
    batch_size: int = Field(default=128, ge=1, description="Questions answered at a time.")
    max_new_tokens: int = Field(default=8, ge=1, description="Longest answer, in tokens.")
    limit: int = Field(default=0, ge=0, description="Answer only the first N test questions; 0 answers all.")
    after: Literal["each_stage", "last_stage", "never"] = Field(
        default="each_stage", description="When training evaluates by itself."
    )


class AblationTable(Options):
    """``[ablation]``: what ``polyvex ablate`` does when the command line does not say."""

    axes: dict[str, list[Any] | str] = Field(
        default_factory=dict,
        description='Axis to values, written as for --set: order = "all", positions = ["sequential", …], any a.b.c, '
        "or set = [{}, {…}], which changes several values at a time.",
    )
    set: dict[str, Any] = Field(
        default_factory=dict, description="Changes to the recipe for every cell, as --set a.b=c."
    )
    seeds: int = Field(default=1, ge=1, description="Seeds per cell.")


class CacheTable(Options):
    """``[cache]``: how the tokens of frozen encoders are kept on disk."""

    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        default="float32", description="Precision on disk; float32 is exact, the others halve the space."
    )
    batch_size: int = Field(default=32, ge=1, description="Images encoded at a time.")


class TrainingTable(Options):
    """``[training]``: what holds for all stages."""

    checkpoint_every: int = Field(
        default=200, ge=1, description="Steps between checkpoints that a stopped run goes on from."
    )
    log_every: int = Field(default=10, ge=1, description="Steps between lines of the metrics file.")
    pack: bool = Field(
        default=False,
        description="Let short samples of a batch share rows, so that less is padding; all else is equal.",
    )


class Recipe(Options):
    """A whole run in one TOML file."""

    name: str = Field(pattern=NAME, description="Name of the recipe.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of weights, sampling and order of samples.")
    encoders: list[Any] = Field(min_length=1, description="Encoders, in the order in which the model sees them.")
    order: list[str] = Field(
        default=[], description="Names of the encoders in the order in which the model sees them; theirs if left out."
    )
    fusion: Any = Field(description="How the encoders' tokens become one sequence.")
    positions: Any = Field(description="Which position ids visual tokens get.")
    lm: Any = Field(description="The language model.")
    moe: Annotated[MoETable | None, false_is_none(MoETable)] = Field(
        default=None, description="Experts of the language model; leave out for a dense one."
    )
    prompt: PromptTable = Field(default=PromptTable(), description="How a question becomes text.")
    data: Any = Field(description="The data set, its splits, and what to do with unreadable images.")
    start: Annotated[StartTable | None, false_is_none(StartTable)] = Field(
        default=None, description="A finished stage of another run to begin with; leave out to begin anew."
    )
    loss: LossTable = Field(default=LossTable(), description="Weights of the auxiliary losses.")
    cache: CacheTable = Field(default=CacheTable(), description="How the tokens of frozen encoders are kept on disk.")
    training: TrainingTable = Field(default=TrainingTable(), description="What holds for all stages.")
    stages: list[Stage] = Field(min_length=1, description="Stages of training, in order.")
    evaluation: EvaluationTable = Field(default=EvaluationTable(), description="How answers are made and scored.")
    ablation: AblationTable = Field(
        default=AblationTable(), description="What `polyvex ablate` does when the command line does not say."
    )

    def located(self) -> Self:
        """The same recipe with the paths in its components' tables made absolute."""
        tables = {part: getattr(self, part).located() for part in ("fusion", "positions", "lm", "data")}
        start = self.start and self.start.located()
        return self.model_copy(
            update={**tables, "encoders": [table.located() for table in self.encoders], "start": start}
        )

    def dump(self) -> dict[str, Any]:
        """Every value as plain data, defaults written out; ``None`` is left out, as TOML has none."""
        return _use_first(self.model_dump(exclude_none=True))


def numbered(names: Sequence[str]) -> list[str]:
    """Names of encoders in order, with -2, -3, … behind repeated ones."""
    counts = [names[: index + 1].count(name) for index, name in enumerate(names)]
    return [name if count == 1 else f"{name}-{count}" for name, count in zip(names, counts, strict=True)]


def placed(template: str, place: str) -> str:
    """A prompt template with its ``{image}`` moved to where ``[prompt] image_place`` says."""
    if place == "template":
        return template
    text = template.replace("{image}", "")
    if place == "before":
        return "{image}" + text
    return text.replace("{question}", "{image}{question}" if place == "between" else "{question}{image}")


def _use_first(value: Any) -> Any:
    """Tables with ``use`` at their top, as people write them."""
    if isinstance(value, list):
        return [_use_first(entry) for entry in value]
    if isinstance(value, dict):
        ordered = {"use": value["use"], **value} if "use" in value else value
        return {key: _use_first(entry) for key, entry in ordered.items()}
    return value
