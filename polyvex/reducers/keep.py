"""A reducer that keeps some tokens as they are and drops the others, by a score that needs no learning."""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from polyvex.reducers.base import Reducer, ReducerOptions
from polyvex.tokens import TokenShape


class KeepOptions(ReducerOptions):
    """Options of ``keep``."""

    tokens: int = Field(default=64, ge=1, description="Tokens that are kept.")
    by: Literal["norm", "attention"] = Field(
        default="attention",
        description="Score: the length of a token's vector, or the attention that all tokens pay it, computed on the "
        "encoder's output.",
    )


class Keep(Reducer[KeepOptions]):
    """The tokens of the highest score, in the order in which they came; their places are not told any more.

    ``attention`` is the mean over all tokens i of softmax_j(x_i · x_j / √width), of centred tokens. It is computed on
    what the encoder emits and not inside it, so that it is there for every encoder, and for tokens from the cache.
    """

    Options = KeepOptions
    summary = "the tokens with the longest vectors, or those that all tokens attend to most; drops the others"

    @classmethod
    def describe(cls, options: KeepOptions, *, shape: TokenShape) -> TokenShape:
        """So many tokens, of the same width and without a grid: which ones depends on the image."""
        if options.tokens > shape.tokens:
            raise ValueError(
                f"keep.tokens = {options.tokens}, but there are only {shape.tokens} tokens. Keep fewer, or take it out"
            )
        return TokenShape(tokens=options.tokens, dim=shape.dim)

    def forward(self, values: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images kept width"]:
        """Pick the tokens of each image."""
        kept = self.scores(values).topk(self.options.tokens, dim=1).indices.sort(dim=1).values
        return values.gather(1, kept[..., None].expand(-1, -1, values.shape[2]))

    def scores(self, values: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images tokens"]:
        """How much each token counts."""
        if self.options.by == "norm":
            return values.norm(dim=-1)
        centred = values - values.mean(dim=1, keepdim=True)
        return (centred @ centred.mT / values.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=1)
