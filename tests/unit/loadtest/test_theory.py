"""Closed forms against each other and against known values."""

from __future__ import annotations

import math

import pytest

from loadtest.theory import (
    allen_cunneen_wait_s,
    erlang_c,
    md1_wait_within,
    mdc_wait_s,
    mmc_wait_s,
    mmc_within,
    quantile,
)


def test_one_worker_waits_with_the_probability_of_the_load() -> None:
    assert erlang_c(0.7, 1) == pytest.approx(0.7)
    assert mmc_wait_s(0.5, 1, 2.0) == pytest.approx(2.0)


def test_erlang_c_of_two_workers_in_closed_form() -> None:
    load = 0.6
    assert erlang_c(load, 2) == pytest.approx(2 * load**2 / (1 + load))


def test_the_sojourn_of_one_worker_is_exponential() -> None:
    for seconds in (0.1, 1.0, 7.0):
        assert mmc_within(seconds, 0.75, 1, 1.0) == pytest.approx(-math.expm1(-0.25 * seconds))
    assert quantile(lambda s: mmc_within(s, 0.75, 1, 1.0), 0.99) == pytest.approx(math.log(100) / 0.25)


def test_its_mean_is_wait_and_service() -> None:
    """Of any number of workers, also where both rates are equal (a load of one half of two workers)."""
    for load, workers in ((0.7, 2), (0.5, 2), (0.9, 5)):
        step = 0.002
        mean = sum(step * (1 - mmc_within(step * (i + 0.5), load, workers, 1.0)) for i in range(60_000))
        assert mean == pytest.approx(1 + mmc_wait_s(load, workers, 1.0), rel=1e-3)


def test_the_wait_of_constant_services_has_its_mean() -> None:
    load = 0.7
    assert md1_wait_within(0, load, 1.0) == pytest.approx(1 - load)
    assert md1_wait_within(-1, load, 1.0) == 0
    step = 0.01
    mean = sum(step * (1 - md1_wait_within(step * (i + 0.5), load, 1.0)) for i in range(1800))
    assert mean == pytest.approx(mdc_wait_s(load, 1, 1.0), rel=1e-3)
    assert mdc_wait_s(load, 1, 1.0) == pytest.approx(allen_cunneen_wait_s(load, 1, 1.0, 1.0, 0.0))


def test_allen_cunneen_is_exact_for_exponential_services() -> None:
    assert allen_cunneen_wait_s(0.8, 3, 1.0, 1.0, 1.0) == pytest.approx(mmc_wait_s(0.8, 3, 1.0))
