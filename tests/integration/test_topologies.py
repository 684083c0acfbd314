"""One replica with every stage makes the same file as stages in processes of their own, and stops without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.processes import lives
from tests.integration.system import System, until

pytestmark = pytest.mark.integration


@pytest.fixture
def monolith(folder: Path) -> Iterator[System]:
    """All stages in one pool, at the laptop profile's degree."""
    pools = [{"name": "Monolith", "stages": ["text", "condition", "denoise", "decode"], "ranks": 2}]
    with System(folder / "monolith", overrides={"topology": "monolith", "pools": pools}) as system:
        yield system


def test_monolith_equals_disaggregated_and_stops_cleanly(monolith: System, system: System) -> None:
    shapes = ({"seconds": "1"}, {"seconds": "2", "aspect_ratio": "1:1"}, {"seconds": "3", "aspect_ratio": "9:16"})
    for shape in shapes:
        one, many = monolith.submit(**shape), system.submit(**shape)
        monolith.finish(one["id"])
        system.finish(many["id"])
        assert monolith.digest(one["id"]) == system.digest(many["id"])
    members = monolith.members()
    assert len(members) > 3
    assert monolith.stop() == 0
    until("every process is gone", lambda: not [member for member in members if lives(member)], 30)
    state = monolith.folder / "state"
    assert not [path for path in (state / "scratch").rglob("*") if path.is_file()]
    assert not list((state / "artifacts").rglob("*.tmp"))
