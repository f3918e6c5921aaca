"""The numbers of SAM's image encoders: what each variant is made of, and what the part that is read costs."""

from dataclasses import dataclass

from polyvex.tokens import Grid

PATCH = 16


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One image encoder of Segment Anything, as ``build_sam.py`` of segment-anything 1.0 writes it.

    ``name`` is for recipes, ``file`` the checkpoint's own name. Blocks attend within windows of ``window`` × ``window``
    tokens; those of ``global_blocks``, counted from 0, to the whole grid. ``neck`` is the width behind the neck.
    """

    name: str
    file: str
    dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    window: int = 14
    neck: int = 256


VIT_B = Variant(name="sam-vit-b", file="sam_vit_b_01ec64.pth", dim=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11))
VIT_L = Variant(
    name="sam-vit-l", file="sam_vit_l_0b3195.pth", dim=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)
)
VIT_H = Variant(
    name="sam-vit-h", file="sam_vit_h_4b8939.pth", dim=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)
)


@dataclass(frozen=True, kw_only=True)
class Structure:
    """The part of a variant that is built: up to the last of ``layers`` (counted from 0), and the neck if ``neck``."""

    variant: Variant
    grid: Grid
    layers: tuple[int, ...]
    neck: bool

    @property
    def blocks(self) -> int:
        """How many blocks run."""
        return max(self.layers) + 1

    @property
    def dim(self) -> int:
        """Width of a token."""
        return self.variant.neck if self.neck else self.variant.dim * len(self.layers)

    def attended(self, block: int) -> int:
        """Side of the square of tokens within which a block attends."""
        return self.grid.rows if block in self.variant.global_blocks else self.variant.window

    def parameters(self) -> int:
        """Weights of the patch embedding, the positions, the blocks and the neck."""
        dim, neck = self.variant.dim, self.variant.neck
        embeddings = (3 * PATCH**2 + 1) * dim + self.grid.tokens * dim
        norms, feed_forward = 2 * 2 * dim, (dim + 1) * 4 * dim + (4 * dim + 1) * dim
        attention = (dim + 1) * 3 * dim + (dim + 1) * dim
        positions = sum(2 * (2 * self.attended(block) - 1) for block in range(self.blocks)) * dim // self.variant.heads
        behind = dim * neck + 9 * neck**2 + 2 * 2 * neck if self.neck else 0
        return embeddings + self.blocks * (norms + feed_forward + attention) + positions + behind

    def flops(self) -> int:
        """Matrix products and convolutions of one image's forward; norms and activations are left out, as is usual."""
        dim, neck, tokens = self.variant.dim, self.variant.neck, self.grid.tokens
        patches = 2 * tokens * 3 * PATCH**2 * dim
        behind = 2 * tokens * (dim * neck + 9 * neck**2) if self.neck else 0
        return patches + sum(self._block_flops(block) for block in range(self.blocks)) + behind

    def _block_flops(self, block: int) -> int:
        """A block's part: the grid is padded to whole windows for the attention, but not for what follows."""
        dim, side = self.variant.dim, self.attended(block)
        windows = (-(-self.grid.rows // side)) ** 2
        length = side**2
        projections = 2 * windows * length * 4 * dim**2
        products = 2 * 2 * windows * length**2 * dim
        positions = 2 * 2 * windows * length * side * dim
        feed_forward = 2 * self.grid.tokens * 8 * dim**2
        return projections + products + positions + feed_forward
