"""What is asked about each image: the mean embedding of the text around it, answers left out."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from polyvex.tokens import TEXT, SequenceLayout


def questions(
    text: Float[Tensor, "batch seq dim"], layout: SequenceLayout, asked: Bool[Tensor, "batch seq"]
) -> Float[Tensor, "images dim"]:
    """The mean embedding of each image's question.

    Args:
        text: embeddings of the text; what is on placeholders does not matter.
        layout: what sits where. The question of an image is the text of its row, or of its packed text.
        asked: false where text is no question, such as the answer and padding.

    Returns:
        One row for each image of the batch, in order, in float32; zero where nothing is asked.
    """
    counts = asked & layout.valid & (layout.place == TEXT)
    length = text.shape[1]
    document = layout.document.clamp(min=0) + torch.arange(len(text), device=text.device)[:, None] * length
    # In float32: bfloat16 cannot count beyond 256.
    sums = torch.zeros(len(text) * length, text.shape[2], device=text.device)
    sums.index_add_(0, document[counts], text[counts].float())
    many = torch.bincount(document[counts], minlength=len(text) * length)
    first = layout.place == 0
    owner = document[first][layout.number[first].argsort()]
    return sums[owner] / many[owner].clamp(min=1)[:, None]
