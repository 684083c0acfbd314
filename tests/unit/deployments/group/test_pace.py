from deployments.group.pace import FACTOR, Pace


def test_an_unknown_shape_has_the_longest_bound() -> None:
    pace = Pace(floor_s=1, limit_s=60)
    assert pace.typical_s("shape") is None
    assert pace.bound_s("shape") == 60


def test_the_bound_follows_the_median_of_the_same_shape() -> None:
    pace = Pace(floor_s=1, limit_s=60)
    for seconds in (2.0, 2.0, 30.0):  # one outlier changes nothing
        pace.measured("large", seconds)
    pace.measured("small", 0.01)
    assert pace.typical_s("large") == 2.0
    assert pace.bound_s("large") == FACTOR * 2.0
    assert pace.bound_s("small") == 1


def test_the_bound_never_exceeds_the_limit() -> None:
    pace = Pace(floor_s=1, limit_s=60)
    pace.measured("huge", 50.0)
    assert pace.bound_s("huge") == 60


def test_old_steps_are_forgotten() -> None:
    pace = Pace(floor_s=0, limit_s=1e6)
    for seconds in [1.0] * 100 + [5.0] * 100:
        pace.measured("shape", seconds)
    assert pace.typical_s("shape") == 5.0
