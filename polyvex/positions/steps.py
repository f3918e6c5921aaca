"""Position schemes whose visual tokens go on by less than one: V2PE's (arXiv 2412.09616, §3.2), and a budget.

V2PE advances the position by δ ≤ 1 before each visual token, δ being drawn for each image in training and fixed at
inference, and rounds up after the image. With the last text token in front of N visual tokens at position p, these are
at p + δ, p + 2δ, …, p + N·δ, and the next text token is at ⌈p + N·δ⌉ + 1: ``get_rope_pos_id`` of OpenGVLab/V2PE at
commit f96f189.
"""

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator

from polyvex.positions.base import PositionOptions, PositionScheme, RunPositions, Within
from polyvex.tokens import VisualLayout

Step = Annotated[float, Field(gt=0, le=1)]


class StrideOptions(PositionOptions):
    """Options of the ``stride`` scheme."""

    step: Step = Field(
        default=0.25,
        description="Positions from each visual token to the next, and from the text in front to the first; V2PE takes "
        "1/2 … 1/256.",
    )


class Stride(PositionScheme[StrideOptions]):
    """Each visual token is a fixed step after the token before it; the first is a step after the text in front."""

    Options = StrideOptions
    summary = "a fixed step of less than one position per visual token (V2PE)"

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        """Counted by steps."""
        return _after_steps(run.tokens, self.options.step)


class RandomStrideOptions(PositionOptions):
    """Options of the ``random_stride`` scheme."""

    steps: list[Step] = Field(
        default=[1 / 2**power for power in range(9)],
        min_length=2,
        description="Steps that training draws from, for each image anew; V2PE's are 1, 1/2, 1/4 … 1/256.",
    )
    step: Step = Field(default=0.0625, description="The step when answering; any will do, drawn in training or not.")

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if len(set(self.steps)) == 1:
            raise ValueError(
                f"steps are all {self.steps[0]:g}, so nothing is random. Give different ones, or take stride"
            )
        return self


class RandomStride(PositionScheme[RandomStrideOptions]):
    """As ``stride``, with a step that training draws for each image."""

    Options = RandomStrideOptions
    summary = "a step per visual token that is random for each image in training (V2PE)"

    @property
    def varies(self) -> bool:
        """In training."""
        return self.training

    def of_image(self) -> Within:
        """Draw the step that all runs of an image go by."""
        options = self.options
        step = options.steps[int(torch.randint(len(options.steps), ()))] if self.training else options.step
        return lambda run, *, image: _after_steps(run.tokens, step)

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        """Counted by steps, of an image that has but this run."""
        return self.of_image()(run, image=image)


class InterpolateOptions(PositionOptions):
    """Options of the ``interpolate`` scheme."""

    positions: int = Field(
        default=64,
        ge=1,
        description="Positions that an image's visual tokens take up together, or each run's with base = common. Fewer "
        "tokens take no more positions than they are.",
    )


class Interpolate(PositionScheme[InterpolateOptions]):
    """The tokens of an image share out a number of positions evenly, however many they are."""

    Options = InterpolateOptions
    summary = "a budget of positions per image, shared out evenly among its tokens"

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        """Counted by the budget over the tokens that share it; never by more than one."""
        return _stepped(run.tokens, min(self.options.positions / image.tokens, 1.0))


def _after_steps(tokens: int, step: float) -> RunPositions:
    """Positions after a step before each token, with -1 for what is in front of the run."""
    found = _stepped(tokens, step)
    ahead = 0 if step == 1 else step - 1
    return RunPositions(offsets=found.offsets + ahead, extent=found.extent)


def _stepped(tokens: int, step: float) -> RunPositions:
    """Whole numbers if the step is one, so that any language model can take them."""
    if step == 1:
        return RunPositions(offsets=torch.arange(tokens), extent=tokens)
    return RunPositions(offsets=torch.arange(tokens, dtype=torch.float32) * step, extent=tokens * step)
