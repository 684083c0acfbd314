"""The first signal asks a run to come to its end; what is not a run ends at once."""

from __future__ import annotations

import signal
import time

import pytest

from loadtest.interrupt import Interrupts


def test_before_a_run_a_signal_exits() -> None:
    with Interrupts(), pytest.raises(SystemExit) as ended:
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 128 + signal.SIGTERM


def test_a_run_is_asked_first_and_a_signal_that_comes_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with Interrupts() as interrupts:
        enough = interrupts.defer()
        assert not enough.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert enough.is_set()
        signal.raise_signal(signal.SIGTERM)  # as `timeout` sends it
        later = time.monotonic() + 60
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGINT)


def test_the_handlers_before_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
