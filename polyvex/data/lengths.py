"""Find samples that do not fit the language model's context, before anything is encoded or trained."""

from collections.abc import Sequence

from polyvex.data.base import Sample
from polyvex.data.prompt import CountTokens, PromptEncoder
from polyvex.errors import DataError

SPECIAL = 8
"""Room for tokens that stand for no byte: begin and end of sequence, and a tokenizer's own prefix."""


def check_lengths(
    samples: Sequence[Sample],
    prompts: PromptEncoder,
    *,
    context: int | None,
    answer: int | None = None,
    count: CountTokens = len,
) -> None:
    """Refuse samples that are longer than ``context`` tokens. They are not cut: that would lose the answer.

    Args:
        context: tokens that the language model's context holds; nothing is checked if it does not say.
        answer: tokens kept free for the answer; the sample's own answer if not given.
        count: how many visual tokens images take, where that depends on the image.

    Raises:
        DataError: with the number of such samples, and the length of the first.
    """
    if context is None:
        return
    long = []
    for sample in samples:
        try:
            images = prompts.places(count(sample.images))
        except DataError:  # an image that cannot be read; such samples are left out and counted where it is decoded
            continue
        if not _surely_fits(sample, prompts, images, context - (answer or 0)):
            length = _length(sample, prompts, images, answer)
            long += [(sample, length)] if length > context else []
    if long:
        sample, length = long[0]
        raise DataError(
            f"{len(long)} of {len(samples)} samples do not fit the language model's context of {context} tokens; the "
            f"first is {sample.id} with {length}. Leave them out, use fewer visual tokens (fusion.patches_per_token, "
            f"an encoder's image_size), or take a language model with a longer context"
        )


def _surely_fits(sample: Sample, prompts: PromptEncoder, images: Sequence[int], room: int) -> bool:
    """Of plain ASCII no tokenizer makes more tokens than characters; so most samples need not be tokenized at all.

    Other text may grow while it is normalised: one Arabic ligature becomes eighteen letters.
    """
    text = prompts.template + sample.question + sample.answer
    return text.isascii() and sum(images) + len(text) + SPECIAL <= room


def _length(sample: Sample, prompts: PromptEncoder, images: Sequence[int], answer: int | None) -> int:
    if answer is not None:
        return len(prompts.question(sample.question, images=images)) + answer
    return len(prompts.example(sample.question, sample.answer, images=images)[0])
