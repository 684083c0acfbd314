from __future__ import annotations

import inspect
import re

from cluster import errors
from cluster.errors import LimitExceeded, NonFinite, OutOfMemory, SkyreelsError, StageError, Unavailable, WorkerLost

TREE = [
    item
    for _, item in inspect.getmembers(errors, inspect.isclass)
    if issubclass(item, SkyreelsError) and item.__name__[0] != "_"
]


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn: dict[str, int] = {
        found[2]: len(found[1]) // 4
        for line in (errors.__doc__ or "").splitlines()
        if (found := re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line))
    }
    depth = {item.__name__: len([base for base in item.__mro__ if base.__name__ in drawn]) - 1 for item in TREE}
    assert drawn == depth


def test_codes_are_unique_machine_names() -> None:
    codes = [item.code for item in TREE]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


def test_an_error_carries_what_the_edge_needs() -> None:
    error = errors.InvalidRequest("Use fewer images.", param="images")
    assert (str(error), error.message, error.param) == ("Use fewer images.", "Use fewer images.", "images")


def test_waiting_errors_say_how_long() -> None:
    for kind in (LimitExceeded, Unavailable):
        assert kind("Later.", retry_after_s=2.5).retry_after_s == 2.5


def test_stage_errors_say_whether_to_retry() -> None:
    for kind in (StageError, OutOfMemory, NonFinite, WorkerLost):
        assert kind("It failed.", retryable=True).retryable
        assert not kind("It failed.", retryable=False).retryable
