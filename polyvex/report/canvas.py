"""What all charts share: the look, axes without frames, and SVG that stands inside a page or as a file of its own.

Inside a page, text, axes and grid take the page's colours, so that one chart suits light and dark. Series have Okabe
and Ito's colours, which people with any colour vision can tell apart, and differ in shape, place or a number too.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, LINE, GROUND = "#010203", "#040506", "#070809", "#0a0b0c"
"""Stand-ins that become the page's colours."""
PAGE_COLORS = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", GROUND: "var(--ground)"}
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#f0e442")
DARK = ("#0072b2",)
"""Colours that need white numbers on them."""
MARKERS = "osD^vP*X"


@dataclass(frozen=True, kw_only=True)
class Look:
    """Colours of what is not a series. ``titled``: the picture has its title in it, since no page stands around it."""

    ink: str = INK
    muted: str = MUTED
    line: str = LINE
    ground: str = GROUND
    titled: bool = False


PAGE = Look()
ALONE = Look(ink="#1c1f24", muted="#5b6370", line="#e2e5ea", ground="#ffffff", titled=True)
"""The light page's colours, for files."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A chart that can be drawn into a page or into a file.

    ``about`` says in words what it shows, for people who cannot see it. ``width`` is in units, about pixels.
    """

    name: str
    title: str
    about: str
    draw: Callable[[Look], Figure]

    def svg(self, *, key: str) -> str:
        """For a page: its colours, ids that begin with ``key``."""
        return svg_text(self.figure(PAGE), key=key, title=self.title, about=self.about)

    def write(self, path: Path) -> None:
        """A file of its own on white ground, PNG or SVG by the ending of ``path``."""
        figure = self.figure(ALONE)
        if path.suffix == ".svg":
            body = svg_text(figure, key=self.name, title=self.title, about=self.about)
            width, height = (round(72 * side) for side in figure.get_size_inches())
            head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            path.write_text(body.replace("<svg ", head, 1) + "\n", encoding="utf-8")
        else:
            figure.savefig(path, dpi=144)

    def figure(self, look: Look) -> Figure:
        """Drawn, with people's text as it is: a name with dollar signs is not mathematics."""
        with matplotlib.rc_context({"text.parse_math": False}):
            figure = self.draw(look)
            if look.titled:
                figure.suptitle(self.title, fontsize=12, color=look.ink)
        return figure


def short(label: str, length: int = 22) -> str:
    """A label that is not longer than its place."""
    return label if len(label) <= length else f"{label[: length - 1]}…"


def canvas(*, width: float, height: float, look: Look = PAGE) -> Figure:
    """An empty figure, in inches; without ground inside a page."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=look.ground)
    figure.patch.set_alpha(1 if look.titled else 0)
    return figure


def one_axes(*, width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of a page with one chart in it."""
    figure = canvas(width=width, height=height)
    return figure, bare(figure.add_subplot())


def bare(axes: Axes, look: Look = PAGE, *, size: float = 11) -> Axes:
    """No frame and no tick marks, in the look's colours."""
    axes.patch.set_alpha(0)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=size, colors=look.muted)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=look.muted, fontsize=size)
    return axes


def svg_text(figure: Figure, *, key: str, title: str, about: str) -> str:
    """Draw, then keep only what a page needs: no prolog, metadata or style, ids of its own, the page's colours."""
    stream = io.StringIO()
    quiet = {"Creator": None, "Date": None, "Format": None, "Type": None}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(stream, format="svg", metadata=quiet)
    text = stream.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # it would hold for the whole page
    body = re.sub(r'id="([^"]+)"', rf'id="{key}-\1"', body)
    body = re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{key}-\1"', body)
    body = body.replace('xlink:href="data:', 'href="data:')
    body = re.sub(r' d="[^"]+"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), body)  # hundredths of a pixel
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", body)
    for stand_in, color in PAGE_COLORS.items():
        body = body.replace(stand_in, color)
    width, height = (round(72 * side) for side in figure.get_size_inches())
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{key}-t {key}-d" class="chart">'
    return f'{head}<title id="{key}-t">{escape(title)}</title><desc id="{key}-d">{escape(about)}</desc>{body}'
