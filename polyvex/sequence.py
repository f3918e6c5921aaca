"""The splice: visual tokens into the text sequence, counted before they are merged."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from polyvex.errors import ContractError
from polyvex.tokens import TEXT, LMInputs, SequenceLayout, VisualLayout, VisualTokens


def lay_out(
    placeholders: Bool[Tensor, "batch seq"], valid: Bool[Tensor, "batch seq"], visual: VisualLayout
) -> SequenceLayout:
    """Say what sits at each place of a sequence, from its placeholders alone.

    Args:
        placeholders: true where a visual token goes; each image takes ``visual.tokens`` places.
        valid: false on padding.

    Raises:
        ContractError: if the placeholders of a row are not a whole number of images.
    """
    counts = placeholders.sum(dim=1)
    if bad := [(row, count) for row, count in enumerate(counts.tolist()) if count % visual.tokens]:
        row, count = bad[0]
        raise ContractError(
            f"row {row} has {count} placeholders, expected a multiple of {visual.tokens}, the visual tokens of one "
            f"image. Was the prompt made by another recipe, or cut?"
        )
    order = placeholders.long().cumsum(dim=1) - 1
    place = (order % visual.tokens).clamp(min=0)
    source = visual.source.to(placeholders.device)
    coords = visual.coords.to(placeholders.device)
    return SequenceLayout(
        image=torch.where(placeholders, order // visual.tokens, TEXT),
        source=torch.where(placeholders, source[place], TEXT),
        coords=torch.where(placeholders[..., None], coords[place], TEXT),
        valid=valid,
    )


def splice(
    text: Float[Tensor, "batch seq dim"], placeholders: Bool[Tensor, "batch seq"], visual: VisualTokens | None
) -> Float[Tensor, "batch seq dim"]:
    """Put visual tokens in their places, image after image, row after row.

    Raises:
        ContractError: if there are more or fewer visual tokens than placeholders. Both numbers are given.
    """
    wanted = int(placeholders.sum())
    if visual is None:
        if wanted:
            raise ContractError(f"got {wanted} placeholders but no image. Pass pixel_values or encoder_tokens")
        return text
    images, tokens, dim = visual.values.shape
    if images * tokens != wanted:
        raise ContractError(
            f"placeholders and visual tokens differ: got {wanted} placeholders for {images} images of {tokens} tokens "
            f"each, expected {images * tokens}. Was the prompt made by another recipe?"
        )
    if dim != text.shape[-1]:
        raise ContractError(
            f"visual tokens are {dim} wide, the language model's embeddings {text.shape[-1]}. Was the "
            f"fusion built for it?"
        )
    values = visual.values.reshape(-1, dim).to(text.dtype)
    return text.masked_scatter(placeholders[..., None], values)


def inputs_of(
    text: Float[Tensor, "batch seq dim"],
    placeholders: Bool[Tensor, "batch seq"],
    valid: Bool[Tensor, "batch seq"],
    visual: VisualTokens | None,
    layout: VisualLayout,
) -> LMInputs:
    """Splice and lay out in one step: what the language model reads, and what sits where."""
    return LMInputs(embeds=splice(text, placeholders, visual), layout=lay_out(placeholders, valid, layout))


def image_counts(ids: Int[Tensor, "batch seq"], placeholder: int, visual: VisualLayout) -> list[int]:
    """Images of each row, from its placeholders."""
    return ((ids == placeholder).sum(dim=1) // visual.tokens).tolist()
