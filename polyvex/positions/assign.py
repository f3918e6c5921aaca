"""From the layout of a sequence to position ids: runs within images, images among text, texts packed in a row."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor, nn

from polyvex.positions.base import PositionScheme, changes
from polyvex.tokens import TEXT, Positions, SequenceLayout, VisualLayout

KEPT = 256
"""Images whose positions are kept; those of AnyRes take some 20 kB."""

Placed = tuple[Real[Tensor, " tokens"], int]
"""Positions of an image's tokens counted from its start, and the whole number of positions that it takes up."""


class PositionAssigner(nn.Module):
    """Gives every token of a sequence its position id.

    Text goes on by one, and behind an image by what the image takes up, always on a whole position. Within an image
    each run is placed as its scheme's ``base`` says; a token that separates runs takes the next free position, which
    runs with a common base may reach, too. Padding on either side changes nothing, and each packed text starts at 0.

    Args:
        scheme: the default of all runs that ``own`` does not list; None if it lists every run.
        own: schemes of some runs, by the run's number.
    """

    def __init__(self, scheme: PositionScheme | None, own: Mapping[int, PositionScheme] | None = None):
        super().__init__()
        self.scheme = scheme
        self.own = nn.ModuleDict({str(run): one for run, one in (own or {}).items()})
        self._known: dict[int, tuple[VisualLayout, Placed]] = {}

    def of_run(self, run: int) -> PositionScheme:
        """The scheme of a run."""
        found = dict(self.own.items()).get(str(run), self.scheme)
        assert isinstance(found, PositionScheme)
        return found

    @property
    def schemes(self) -> list[PositionScheme]:
        """All schemes: the default if a run uses it, then those of single runs."""
        default = [] if self.scheme is None else [self.scheme]
        return [*default, *(self.of_run(int(run)) for run in self.own)]

    def assign(self, layout: SequenceLayout) -> Positions:
        """Give each place its position id (0 on padding), and tell where decoding goes on.

        Ids are whole numbers, or float32 where a scheme has steps with a fraction.
        """
        within, extent = self._images(layout)
        step = torch.where(layout.image == TEXT, layout.valid.long(), extent)
        end = step.cumsum(dim=1)
        start = end - step
        # Counts never fall, so the count at the start of a packed text is the greatest so far.
        begins = changes(layout.document) & layout.valid
        origin = start.masked_fill(~begins, 0).cummax(dim=1).values
        ids = (start - origin + within).masked_fill(~layout.valid, 0)
        return Positions(ids=ids, next_id=end[:, -1] - origin[:, -1])

    def _images(self, layout: SequenceLayout) -> tuple[Real[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
        """Positions within the image (0 on text), and the image's extent on its last token (0 elsewhere)."""
        device, text = layout.place.device, layout.place == TEXT
        number = layout.number.clamp(min=0)
        if isinstance(layout.layouts, VisualLayout) and not any(scheme.varies for scheme in self.schemes):
            placed = [self.of_image(layout.layouts)]
            index, number = layout.flat, torch.zeros_like(number)
        elif isinstance(layout.layouts, VisualLayout):
            images = int(layout.number.max()) + 1
            placed = [self.of_image(layout.layouts) for _ in range(max(images, 1))]
            index = number * layout.layouts.tokens + layout.flat
        else:
            placed = [self.of_image(one) for one in layout.layouts] or [(torch.zeros(1, dtype=torch.long), 0)]
            index = layout.flat
        counts = torch.tensor([len(ids) for ids, _ in placed], device=device)
        extents = torch.tensor([extent for _, extent in placed], device=device)
        within = torch.cat([ids for ids, _ in placed]).to(device)[index].masked_fill(text, 0)
        last = ~text & (layout.place == counts[number] - 1)
        return within, torch.where(last, extents[number], 0)

    def of_image(self, layout: VisualLayout) -> Placed:
        """Positions within one image, and the whole number of positions that it takes up."""
        if any(scheme.varies for scheme in self.schemes):
            return self._place(layout)
        if id(layout) not in self._known:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[id(layout)] = (layout, self._place(layout))  # the layout is kept, so that its id stays its own
        return self._known[id(layout)][1]

    def _place(self, layout: VisualLayout) -> Placed:
        parts, indices, free = [], [], 0.0
        stretches = list(_stretches(layout))
        within = {scheme: scheme.of_image() for scheme in self.schemes}
        for run, index in stretches:
            if run == TEXT:
                free = math.ceil(_steady(free))
                parts.append(torch.arange(len(index)) + int(free))
                free += len(index)
            else:
                scheme = self.of_run(run)
                sequential = scheme.options.base == "sequential"
                together = self._served(scheme, stretches) if sequential else index
                found = within[scheme](layout.pick(index), image=layout.pick(together))
                start = free if sequential else 0.0
                parts.append(_moved(found.offsets, _steady(start)))
                free = max(free, start + found.extent)
            indices.append(index)
        ids = torch.cat(parts)  # of whole and broken numbers, torch makes broken ones
        return ids[torch.cat(indices).argsort()], max(1, math.ceil(_steady(free)))

    def _served(self, scheme: PositionScheme, stretches: list[tuple[int, Tensor]]) -> Int[Tensor, " tokens"]:
        """The places of all tokens that a scheme gives positions to."""
        return torch.cat([index for run, index in stretches if run != TEXT and self.of_run(run) is scheme])

    def embed(
        self, values: Float[Tensor, "*images tokens dim"], layout: VisualLayout
    ) -> Float[Tensor, "*images tokens dim"]:
        """Add what the schemes keep in the embeddings of their runs; see :meth:`PositionScheme.embed`."""
        if self.scheme is not None and not len(self.own):
            return self.scheme.embed(values, layout)
        result = values
        for run in layout.run.unique().tolist():
            if run != TEXT:
                index = (layout.run == run).nonzero()[:, 0].to(values.device)
                changed = self.of_run(run).embed(values.index_select(-2, index), layout.pick(index.cpu()))
                result = result.index_copy(-2, index, changed)
        return result


def _stretches(layout: VisualLayout) -> list[tuple[int, Int[Tensor, " tokens"]]]:
    """The runs of an image in the order of their first token, separators one by one between them, and their tokens."""
    opens = changes(layout.run)
    found: dict[tuple[int, int], list[Tensor]] = {}
    for number, (run, index) in enumerate(
        zip(layout.run[opens].tolist(), torch.arange(layout.tokens).tensor_split(opens.nonzero()[1:, 0]), strict=True)
    ):
        found.setdefault((run, number if run == TEXT else TEXT), []).append(index)
    return [(run, torch.cat(indices)) for (run, _), indices in found.items()]


def _moved(offsets: Real[Tensor, " tokens"], start: float) -> Real[Tensor, " tokens"]:
    """Offsets from ``start``: whole numbers as long as both are, else float32."""
    if offsets.is_floating_point() or not float(start).is_integer():
        return offsets.float() + start
    return offsets + int(start)


def _steady(number: float) -> float:
    """A sum of steps, without what rounding left of it: 0.1 + 0.2 is 0.3, and takes up one position, not two."""
    return round(number, 6)
