"""How many ranks share one forward, in which way, and which tokens each of them holds. Integers only.

A layout is Ulysses × ring. Ulysses ranks exchange tokens for heads around attention, so their number divides the
heads; ring ranks pass keys and values on and take any number. Rank r of a world has place r mod degree in its group,
and place p is (ring, Ulysses) = divmod(p, ulysses): an Ulysses group holds consecutive tokens. Ranks beyond the
degree repeat the same forward, so that a layout of any degree that divides the world gives every rank the result.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """A way to share one forward among ranks. ValueError when a factor is below 1."""

    ulysses: int = 1
    ring: int = 1

    def __post_init__(self) -> None:
        if self.ulysses < 1 or self.ring < 1:
            raise ValueError(f"a layout's factors are at least 1, not {self}")

    def __str__(self) -> str:
        return f"Ulysses {self.ulysses} × ring {self.ring}"

    @property
    def degree(self) -> int:
        """Ranks that share one forward."""
        return self.ulysses * self.ring


SINGLE = Layout()
"""Every rank computes the whole forward."""


def layouts(world_size: int) -> tuple[Layout, ...]:
    """Every layout of a world, whatever the model: degree ascending, and within a degree most Ulysses first."""
    if world_size < 1:
        raise ValueError(f"a world has at least 1 rank, not {world_size}")
    degrees = [degree for degree in range(1, world_size + 1) if world_size % degree == 0]
    return tuple(
        Layout(ulysses, degree // ulysses)
        for degree in degrees
        for ulysses in range(degree, 0, -1)
        if degree % ulysses == 0
    )


def legal_layouts(world_size: int, heads: int) -> tuple[Layout, ...]:
    """The layouts of a world that a model of so many attention heads can use, in the order of `layouts`."""
    if heads < 1:
        raise ValueError(f"a model has at least 1 attention head, not {heads}")
    return tuple(layout for layout in layouts(world_size) if heads % layout.ulysses == 0)


def check(layout: Layout, world_size: int, heads: int) -> None:
    """Refuses what `legal_layouts` leaves out, with the reason. ValueError."""
    if world_size % layout.degree:
        raise ValueError(
            f"{layout} needs {layout.degree} ranks, which does not divide the world of {world_size}; "
            f"choose a degree that does."
        )
    if heads % layout.ulysses:
        raise ValueError(
            f"{layout} cannot share {heads} attention heads evenly; choose an Ulysses factor that divides {heads}, "
            f"or more ring."
        )


def pick(world_size: int, heads: int, ulysses: int | None = None, ring: int | None = None) -> Layout:
    """The layout that shares one forward among all ranks of a world.

    Args:
        world_size: number of ranks.
        heads: the model's attention heads.
        ulysses: its factor; None = what `ring` leaves, or the largest that divides ranks and heads.
        ring: its factor; None = what Ulysses leaves.

    Raises:
        ValueError: the factors do not fit the ranks or the heads.
    """
    if ulysses is None and ring is None:
        return next(layout for layout in legal_layouts(world_size, heads) if layout.degree == world_size)
    layout = Layout(ulysses or world_size // (ring or 1), ring or world_size // (ulysses or 1))
    if layout.degree != world_size:
        raise ValueError(f"{layout} does not use all {world_size} ranks; choose factors whose product is {world_size}.")
    check(layout, world_size, heads)
    return layout


def partition(world_size: int, size: int, stride: int) -> tuple[tuple[int, ...], ...]:
    """All ranks in groups of `size`, members `stride` apart.

    The Ulysses groups of a layout are (ulysses, 1), its ring groups (ring, ulysses). ValueError when they do not fill
    the world.
    """
    span = size * stride
    if size < 1 or stride < 1 or world_size % span:
        raise ValueError(f"groups of {size} ranks {stride} apart do not fill a world of {world_size}")
    return tuple(
        tuple(range(first + lane, first + span, stride))
        for first in range(0, world_size, span)
        for lane in range(stride)
    )


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """Which tokens each place holds. Every place holds `rows` rows; those beyond its slice are padding.

    Padding is at the end of the sequence only, so `all places concatenated [: tokens]` is the sequence again, and a
    run of consecutive places has its padding at its end.
    """

    tokens: int
    rows: int
    slices: tuple[tuple[int, int], ...]  # (start, stop) of the real tokens by place; empty where start == stop

    @property
    def degree(self) -> int:
        return len(self.slices)

    @property
    def pad(self) -> int:
        """Rows of padding over all places; below degree × unit."""
        return self.rows * self.degree - self.tokens

    def held(self, first: int, count: int = 1) -> int:
        """Real tokens of `count` consecutive places from `first` on."""
        return self.slices[first + count - 1][1] - self.slices[first][0]


def split_plan(tokens: int, degree: int, unit: int = 1) -> SplitPlan:
    """Cuts a sequence into `degree` parts of equal length.

    Args:
        tokens: of the sequence.
        degree: parts.
        unit: tokens that stay together, such as those of one frame; divides `tokens`.

    Raises:
        ValueError: a number is below 1, or the unit does not divide the tokens.
    """
    if tokens < 1 or degree < 1 or unit < 1:
        raise ValueError(f"tokens, degree and unit are at least 1, not {tokens}, {degree} and {unit}")
    if tokens % unit:
        raise ValueError(f"{tokens} tokens are not whole units of {unit}")
    rows = -(-tokens // (degree * unit)) * unit
    edges = [min(place * rows, tokens) for place in range(degree + 1)]
    return SplitPlan(tokens, rows, tuple(itertools.pairwise(edges)))
