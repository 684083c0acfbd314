import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import plans
from components.dit import REFERENCE_SLOTS
from components.usp import SINGLE, Layout, check, layouts, legal_layouts, partition, pick, split_plan

V3_HEADS = 40
SIZES = sorted({size for family in plans.BUCKETS.values() for size in family.values()})


def test_degree():
    assert Layout(ulysses=5, ring=2).degree == 10
    assert SINGLE.degree == 1


@pytest.mark.parametrize(("ulysses", "ring"), [(0, 1), (1, 0), (-2, 2)])
def test_factors_below_one_are_refused(ulysses, ring):
    with pytest.raises(ValueError, match="at least 1"):
        Layout(ulysses, ring)


@pytest.mark.parametrize(
    ("world_size", "heads", "expected"),
    [
        (1, 40, [(1, 1)]),
        (4, 40, [(1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4)]),
        (4, 3, [(1, 1), (1, 2), (1, 4)]),
        (3, 3, [(1, 1), (3, 1), (1, 3)]),
        (5, 40, [(1, 1), (5, 1), (1, 5)]),
        (6, 3, [(1, 1), (1, 2), (3, 1), (1, 3), (3, 2), (1, 6)]),
    ],
)
def test_legal_layouts(world_size, heads, expected):
    assert [(layout.ulysses, layout.ring) for layout in legal_layouts(world_size, heads)] == expected


@given(st.integers(1, 48), st.integers(1, 48))
def test_check_agrees_with_the_list(world_size, heads):
    legal = legal_layouts(world_size, heads)
    assert SINGLE in legal
    for layout in (Layout(u, r) for u in range(1, 9) for r in range(1, 9)):
        if layout in legal:
            check(layout, world_size, heads)
        elif layout.degree <= world_size:
            with pytest.raises(ValueError, match=r"divide"):
                check(layout, world_size, heads)


def test_every_ulysses_factor_of_the_released_heads_is_legal():
    assert {layout.ulysses for layout in legal_layouts(40, V3_HEADS)} == {1, 2, 4, 5, 8, 10, 20, 40}


def test_layouts_do_not_depend_on_heads():
    assert len(layouts(8)) == 10
    assert set(legal_layouts(8, 3)) < set(layouts(8))


def test_groups_of_a_layout():
    assert partition(8, 2, 1) == ((0, 1), (2, 3), (4, 5), (6, 7))  # Ulysses 2
    assert partition(8, 2, 2) == ((0, 2), (1, 3), (4, 6), (5, 7))  # its ring 2, two replicas
    assert partition(8, 4, 2) == ((0, 2, 4, 6), (1, 3, 5, 7))  # its ring 4


@given(st.integers(1, 48))
def test_groups_hold_every_rank_once(world_size):
    for layout in layouts(world_size):
        for parts in (partition(world_size, layout.ulysses, 1), partition(world_size, layout.ring, layout.ulysses)):
            assert sorted(rank for part in parts for rank in part) == list(range(world_size))


def test_groups_that_do_not_fill_the_world_are_refused():
    with pytest.raises(ValueError, match="do not fill a world of 6"):
        partition(6, 2, 2)


@pytest.mark.parametrize("call", [lambda: layouts(0), lambda: legal_layouts(2, 0), lambda: split_plan(0, 2)])
def test_numbers_below_one_are_refused(call):
    with pytest.raises(ValueError, match="at least 1"):
        call()


def assert_exact(tokens, degree):
    """Cut, pad and join by index give the sequence back, for single places and for runs of places."""
    plan = split_plan(tokens, degree)
    assert (plan.tokens, plan.degree) == (tokens, degree)
    assert 0 <= plan.pad < degree
    assert plan.rows * degree == tokens + plan.pad
    edge = 0
    for place, (start, stop) in enumerate(plan.slices):
        assert start == edge
        assert stop - start == plan.held(place) <= plan.rows
        # Padding may only follow the last token, or the joined sequence would have a gap.
        assert stop - start == plan.rows or stop == tokens
        edge = stop
    assert edge == tokens
    for count in (count for count in range(1, degree + 1) if degree % count == 0):
        held = [plan.held(first, count) for first in range(0, degree, count)]
        assert sum(held) == tokens
        assert all(number == count * plan.rows for number in held[: tokens // (count * plan.rows)])


@given(st.integers(1, 5000), st.integers(1, 48))
def test_split_is_exact(tokens, degree):
    assert_exact(tokens, degree)


@given(st.integers(1, 300), st.integers(1, 9))
def test_concatenated_parts_are_the_sequence(tokens, degree):
    plan = split_plan(tokens, degree)
    sequence = list(range(tokens))
    parts = []
    for start, stop in plan.slices:
        part = sequence[start:stop]
        parts += part + [None] * (plan.rows - len(part))
    assert parts[:tokens] == sequence
    assert parts[tokens:] == [None] * plan.pad


@pytest.mark.parametrize("degree", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("duration_s", [1, 5, 10])
def test_split_is_exact_on_every_bucket(degree, duration_s):
    for height, width in SIZES:
        frames = plans.latent_frames(plans.clip_frames(duration_s, 24)) + REFERENCE_SLOTS
        assert_exact(frames * (height // 16) * (width // 16), degree)


@pytest.mark.parametrize(
    ("world_size", "heads", "wanted", "expected"),
    [
        (1, 40, {}, (1, 1)),
        (8, 40, {}, (8, 1)),
        (6, 40, {}, (2, 3)),
        (7, 40, {}, (1, 7)),
        (8, 40, {"ulysses": 2}, (2, 4)),
        (8, 40, {"ring": 8}, (1, 8)),
        (4, 40, {"ulysses": 2, "ring": 2}, (2, 2)),
    ],
)
def test_the_layout_of_a_group(world_size, heads, wanted, expected):
    assert pick(world_size, heads, **wanted) == Layout(*expected)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [({"ulysses": 3}, "all 8 ranks"), ({"ring": 16}, "at least 1"), ({"ulysses": 8}, "12 attention heads")],
)
def test_a_layout_that_cannot_be_is_refused_in_words(wanted, message):
    with pytest.raises(ValueError, match=message):
        pick(8, 12, **wanted)


@pytest.mark.parametrize("degree", [1, 2, 4, 8])
def test_every_roll_of_every_extension_is_cut_between_frames_without_padding(degree):
    rolls = {roll for seconds in range(1, 31) for roll in plans.extension_rolls(seconds)}
    rolls |= {plans.shot_roll(seconds) for seconds in range(2, 6)}
    for roll in rolls:
        for height, width in SIZES:
            unit = height // plans.TOKEN_PIXELS * (width // plans.TOKEN_PIXELS)
            plan = split_plan((roll.prefix_latents + roll.new_latents) * unit, degree, unit)
            assert plan.pad == 0
            assert all(start % unit == stop % unit == 0 for start, stop in plan.slices)


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 12))
def test_units_stay_together(units, unit, degree):
    plan = split_plan(units * unit, degree, unit)
    assert plan.rows % unit == 0
    assert plan.slices[0][0] == 0
    assert plan.slices[-1][1] == plan.tokens == units * unit
    assert all(stop - start <= plan.rows and start % unit == 0 for start, stop in plan.slices)
    assert plan.pad < degree * unit


@pytest.mark.parametrize(("tokens", "unit"), [(10, 3), (4, 0)])
def test_units_that_do_not_fill_the_sequence_are_refused(tokens, unit):
    with pytest.raises(ValueError, match=r"at least 1|whole units"):
        split_plan(tokens, 2, unit)
