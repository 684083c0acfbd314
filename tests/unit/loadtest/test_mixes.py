"""Scenarios: shipped ones are valid, wrong ones say where."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.mixes import ScenarioError, load, parse, shipped

SMALL = """
name: small
about: a test
mix: [{model: skyreels-v3-r2v, resolutions: {64P: 1}, seconds: {1: 1}}]
slo: {only: {latency_s: 5, per_video_s: 2}}
"""


def test_shipped_scenarios_are_valid_and_named_after_their_files() -> None:
    assert {"r2v", "avatar", "all-v3"} <= set(shipped())
    assert [load(name).name for name in shipped()] == list(shipped())


def test_a_file_is_a_scenario_too(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(SMALL)
    assert load(str(path)).mix[0].seconds == {1: 1}
    with pytest.raises(ScenarioError, match="cannot be read"):
        load(str(tmp_path / "none.yaml"))


def test_an_unknown_scenario_lists_the_shipped_ones() -> None:
    with pytest.raises(ScenarioError, match="r2v"):
        load("nothing")


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ("speed: 3", "speed"),
        ("arrivals: {kind: gamma, cw: 3}", "arrivals.gamma.cw"),
        ("arrivals: {kind: tides}", "arrivals"),
        ("cancels: {share: 2}", "cancels.share"),
        ("warmup_s: 60", "scenario"),
        ("seeds: [1, 1]", "scenario"),
        ("hurts: [{at_s: 3, kind: VaeRoom, fault: scare}]", "hurts.0.fault"),
        ("mix: [{model: nothing, resolutions: {64P: 1}, seconds: {1: 1}}]", "mix.0"),
        ("mix: [{model: skyreels-v3-r2v, resolutions: {64P: 0}, seconds: {1: 1}}]", "mix.0.resolutions.64P"),
    ],
)
def test_an_error_names_the_key(more: str, path: str) -> None:
    kept = [line for line in SMALL.splitlines() if line.partition(":")[0] != more.partition(":")[0]]
    with pytest.raises(ScenarioError, match=rf"small: {path}"):
        parse("\n".join([*kept, more]), "small")


def test_the_limit_grows_with_the_video() -> None:
    assert parse(SMALL, "small").slo["only"].limit_s(3) == 11
