"""From a question to token ids, and from an answer to labels: by construction, never by searching text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from polyvex.errors import ContractError

IMAGE = "<image>"
"""The placeholder's text; one stands for a whole image until it is repeated per visual token."""

Images = int | Sequence[int]
"""The number of images, or the visual tokens of each one."""

CountTokens = Callable[[Sequence[str]], Images]
"""From the paths of a sample's images to what their prompt needs: their number, or the visual tokens of each."""

IGNORED = -100
"""Label of tokens that nothing is to be learned from."""


@dataclass(frozen=True, kw_only=True)
class PromptEncoder:
    """Turns questions and answers into ids for one model.

    ``visual_tokens`` is the number of placeholders per image; None where it depends on the image, and then callers
    say how many each one takes. The same functions make the prompts of training and
    of generation, so what the model is asked is what it was trained on, token by token. ``end_ids`` follow each answer;
    the end of the sequence if empty.
    """

    tokenizer: Any
    template: str
    image_token_id: int
    visual_tokens: int | None
    end_ids: tuple[int, ...] = ()

    def text(self, question: str, *, images: int = 1) -> str:
        """The prompt as text, with one ``<image>`` per image."""
        before, _, after = self.template.partition("{image}")
        filled = [part.replace("{question}", question) for part in (before, after)]
        return filled[0] + IMAGE * images + filled[1]

    def ids(self, text: str, *, images: Images | None = None) -> list[int]:
        """Token ids of a prompt, each ``<image>`` as placeholders.

        It begins with begin-of-sequence if the tokenizer has one, once, whether the text has it or not.
        """
        parts = text.split(IMAGE)
        return self._join(parts, self.places(len(parts) - 1 if images is None else images))

    def question(self, question: str, *, images: Images = 1) -> list[int]:
        """Token ids of a question in the template. ``<image>`` or ``</s>`` written in the question stays text.

        Args:
            images: the number of images, or the visual tokens of each.
        """
        before, _, after = self.template.partition("{image}")
        places = self.places(images)
        parts = [before, *[""] * (len(places) - 1), after] if places else [before + after]
        return self._join(parts, places, question)

    def places(self, images: Images) -> list[int]:
        """Placeholders of each image.

        Raises:
            ContractError: if they depend on the images, and only their number is given.
        """
        if not isinstance(images, int):
            return list(images)
        if images and self.visual_tokens is None:
            raise ContractError("the visual tokens depend on the images; say how many each has, not how many there are")
        return [self.visual_tokens or 0] * images

    def _join(self, parts: list[str], places: list[int], question: str | None = None) -> list[int]:
        """Ids of text parts, with the placeholders of one image between each two."""
        begin = self.tokenizer.bos_token
        begun = begin is None or parts[0].startswith(begin)  # as templates of chats do
        ids = [] if begun else [self.tokenizer.bos_token_id]
        for index, part in enumerate(parts):
            if index:
                ids += [self.image_token_id] * places[index - 1]
            ids += self._plain(part) if question is None else self._filled(part, question)
        return ids

    @cached_property
    def _special(self) -> frozenset[str]:
        """Every token that the tokenizer would take for more than its text, named in its map of special ones or not."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {}).values()
        return frozenset([*self.tokenizer.all_special_tokens, *(str(one) for one in added if one.special)])

    def _filled(self, part: str, question: str) -> list[int]:
        """A part of the template with the question in it. The template may have special tokens; people's text not."""
        if not any(token in question for token in self._special):
            return self._plain(part.replace("{question}", question))
        before, mark, after = part.partition("{question}")
        return self._plain(before) + (self._literal(question) if mark else []) + self._plain(after)

    def example(self, question: str, answer: str, *, images: Images = 1) -> tuple[list[int], list[int]]:
        """Ids and labels of a training example; labels cover the answer and its end, nothing else."""
        prompt = self.question(question, images=images)
        reply = [*self._literal(answer), *(self.end_ids or (self.tokenizer.eos_token_id,))]
        return prompt + reply, [IGNORED] * len(prompt) + reply

    def _plain(self, text: str) -> list[int]:
        """Ids of text of the template; ``<image>`` in it is text that somebody wrote, not a placeholder."""
        if not text:
            return []
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return self._literal(text) if self.image_token_id in ids else ids

    def _literal(self, text: str) -> list[int]:
        """Ids of people's text, in which nothing is special."""
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) if text else []
