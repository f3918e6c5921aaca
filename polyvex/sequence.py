"""The splice: visual tokens into the text sequence, counted before they are merged."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from polyvex.errors import ContractError
from polyvex.tokens import TEXT, Layouts, LMInputs, SequenceLayout, VisualLayout, VisualSequence


def lay_out(
    placeholders: Bool[Tensor, "batch seq"],
    valid: Bool[Tensor, "batch seq"],
    layouts: Layouts,
    documents: Int[Tensor, "batch seq"] | None = None,
) -> SequenceLayout:
    """Say what sits at each place of a sequence, from its placeholders.

    Args:
        placeholders: true where a visual token goes.
        valid: false on padding.
        layouts: of each image, row after row; or one that all images share, and then their number follows from the
            placeholders.
        documents: number of the packed text that each place belongs to; each row is one text if not given.

    Raises:
        ContractError: if the placeholders of a row are not those of whole images.
    """
    images = torch.tensor(images_of_rows(placeholders.sum(dim=1).tolist(), layouts), device=placeholders.device)
    order = (placeholders.flatten().long().cumsum(dim=0) - 1).clamp(min=0).view_as(placeholders)
    if isinstance(layouts, VisualLayout):
        number, place = order // layouts.tokens, order % layouts.tokens
    else:
        counts = torch.tensor([layout.tokens for layout in layouts] or [1], device=placeholders.device)
        number = torch.arange(len(counts), device=placeholders.device).repeat_interleave(counts)[order]
        place = order - (counts.cumsum(dim=0) - counts)[number]
    before = images.cumsum(dim=0) - images
    return SequenceLayout(
        image=torch.where(placeholders, number - before[:, None], TEXT),
        number=torch.where(placeholders, number, TEXT),
        place=torch.where(placeholders, place, TEXT),
        valid=valid,
        document=torch.zeros_like(order) if documents is None else documents,
        layouts=layouts,
    )


def images_of_rows(counts: list[int], layouts: Layouts) -> list[int]:
    """Images of each row, from its number of placeholders.

    Raises:
        ContractError: if a row ends inside an image, or all rows together have other images than ``layouts``.
    """
    if isinstance(layouts, VisualLayout):
        for row, count in enumerate(counts):
            if count % layouts.tokens:
                raise ContractError(
                    f"row {row} has {count} placeholders, expected a multiple of {layouts.tokens}, the visual tokens "
                    f"of one image. Was the prompt made by another recipe, or cut?"
                )
        return [count // layouts.tokens for count in counts]
    sizes = [layout.tokens for layout in layouts]
    images, rest = [], list(sizes)
    for row, count in enumerate(counts):
        taken, wanted = 0, count
        while wanted > 0 and rest:
            wanted -= rest.pop(0)
            taken += 1
        if wanted:
            raise ContractError(
                f"row {row} has {count} placeholders, which are not whole images: the images of the batch have "
                f"{', '.join(map(str, sizes)) or 'no'} visual tokens. Was the prompt made for other images, or cut?"
            )
        images.append(taken)
    if rest:
        raise ContractError(
            f"got {len(sizes)} images, but placeholders for {len(sizes) - len(rest)} of them. Each needs one <image>"
        )
    return images


def splice(
    text: Float[Tensor, "batch seq dim"],
    placeholders: Bool[Tensor, "batch seq"],
    visual: Float[Tensor, "tokens dim"] | None,
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
    tokens, dim = visual.shape
    if tokens != wanted:
        raise ContractError(
            f"placeholders and visual tokens differ: got {wanted} placeholders for {tokens} visual tokens. Was the "
            f"prompt made by another recipe, or for other images?"
        )
    if dim != text.shape[-1]:
        raise ContractError(
            f"visual tokens are {dim} wide, the language model's embeddings {text.shape[-1]}. Was the "
            f"fusion built for it?"
        )
    places = placeholders.flatten().nonzero()[:, 0]  # rows are copied whole, much quicker than masked_scatter
    return text.flatten(0, 1).index_copy(0, places, visual.to(text.dtype)).view_as(text)


def inputs_of(
    text: Float[Tensor, "batch seq dim"],
    placeholders: Bool[Tensor, "batch seq"],
    valid: Bool[Tensor, "batch seq"],
    visual: VisualSequence | None,
    layouts: Layouts,
    documents: Int[Tensor, "batch seq"] | None = None,
) -> LMInputs:
    """Splice and lay out in one step: what the language model reads, and what sits where."""
    embeds = splice(text, placeholders, visual.values if visual is not None else None)
    return LMInputs(embeds=embeds, layout=lay_out(placeholders, valid, layouts, documents))
