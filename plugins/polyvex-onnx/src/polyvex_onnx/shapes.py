"""From the shape of a graph's output to tokens and their grid, as the options say it is to be read."""

from math import isqrt

from polyvex.tokens import Grid, TokenShape
from polyvex_onnx.facts import GraphFacts
from polyvex_onnx.options import OnnxOptions

LAYOUTS = {
    "tokens": "images tokens dim -> images tokens dim",
    "map": "images dim rows cols -> images (rows cols) dim",
    "map_last": "images rows cols dim -> images (rows cols) dim",
}
"""How the axes of an output become tokens."""


def token_shape(options: OnnxOptions, facts: GraphFacts) -> TokenShape:
    """Tokens, width and grid of one image.

    Raises:
        ValueError: if the output has other axes than the layout, or its tokens are not those of the grid.
    """
    shape = facts.shape
    axes = LAYOUTS[options.layout].partition(" ->")[0]
    if len(shape) != len(axes.split()) or shape[0] != 1:
        raise ValueError(
            f"'{options.output}' is {list(shape)} for one image; layout = '{options.layout}' expects [{axes}]. "
            f"{_advice(shape)}"
        )
    if options.layout == "map":
        return TokenShape(tokens=shape[2] * shape[3], dim=shape[1], grid=Grid(rows=shape[2], cols=shape[3]))
    if options.layout == "map_last":
        return TokenShape(tokens=shape[1] * shape[2], dim=shape[3], grid=Grid(rows=shape[1], cols=shape[2]))
    tokens = shape[1] - options.skip
    if tokens < 1:
        raise ValueError(f"'{options.output}' has {shape[1]} tokens, so skip = {options.skip} leaves none")
    return TokenShape(tokens=tokens, dim=shape[2], grid=_grid(options, tokens))


def _grid(options: OnnxOptions, tokens: int) -> Grid | None:
    if options.grid == "none":
        return None
    side = isqrt(tokens)
    rows, cols = options.grid or (side, side)
    if rows * cols == tokens:
        return Grid(rows=rows, cols=cols)
    what = f"'{options.output}' has {tokens} tokens after skip = {options.skip}"
    if options.grid:
        raise ValueError(f"{what}; grid = [{rows}, {cols}] has {rows * cols} places")
    raise ValueError(
        f"{what}, which is no square. If class or register tokens stand in front, count them in skip; otherwise say "
        "grid = [rows, cols], or grid = 'none' if they have no places"
    )


def _advice(shape: tuple[int, ...]) -> str:
    if len(shape) == 4 and shape[0] == 1:
        return "layout = 'map' reads [images dim rows cols], 'map_last' reads [images rows cols dim]"
    if len(shape) == 3 and shape[0] == 1:
        return "layout = 'tokens' reads [images tokens dim]"
    return "Name a tensor further inside the graph, before it is pooled or cut into windows"
