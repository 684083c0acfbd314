from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.errors import Conflict
from cluster.records import (
    TERMINAL_STATES,
    Event,
    Failure,
    Handle,
    Job,
    JobState,
    Request,
    Result,
    StageCall,
    StageRef,
    decode,
    encode,
    transition,
)
from tests.unit.cluster.makers import ARTIFACT, EPOCH, REQUEST, handle, kept_for, worker

S = JobState
LEGAL = {
    (S.QUEUED, S.RUNNING),
    (S.RUNNING, S.PUBLISHING),
    (S.PUBLISHING, S.DONE),
    *((start, end) for start in (S.QUEUED, S.RUNNING, S.PUBLISHING) for end in (S.FAILED, S.CANCELLED, S.EXPIRED)),
}
MOMENTS = st.datetimes(min_value=datetime(2000, 1, 1), timezones=st.just(UTC))
TEXTS = st.text(max_size=20)


@pytest.mark.parametrize("start", list(JobState))
@pytest.mark.parametrize("end", list(JobState))
def test_the_transition_table(start: JobState, end: JobState) -> None:
    if (start, end) in LEGAL:
        assert transition(start, end) is end
    else:
        with pytest.raises(Conflict, match=f"{start.value} cannot become {end.value}"):
            transition(start, end)


@given(st.lists(st.sampled_from(JobState), max_size=12))
def test_no_walk_returns_or_leaves_an_end(walk: list[JobState]) -> None:
    state, seen = S.QUEUED, [S.QUEUED]
    for to in walk:
        try:
            state = transition(state, to)
        except Conflict:
            continue
        seen.append(state)
    assert len(set(seen)) == len(seen)
    assert [item.terminal for item in seen[:-1]] == [False] * (len(seen) - 1)


def test_terminal_states_are_those_that_nothing_leaves() -> None:
    assert set(JobState) - {start for start, _ in LEGAL} == TERMINAL_STATES


@pytest.mark.parametrize(
    "record",
    [REQUEST, kept_for(60), ARTIFACT, handle("k"), worker(), Failure("c", "m"), StageCall(StageRef("j", "s", 2), 5)],
    ids=lambda record: type(record).__name__,
)
def test_records_survive_json(record: Any) -> None:
    assert decode(type(record), json.loads(json.dumps(encode(record)))) == record


@given(
    st.builds(Event, TEXTS, st.integers(1), TEXTS, st.dictionaries(TEXTS, TEXTS | st.integers() | st.none()), MOMENTS)
)
def test_events_survive_json(event: Event) -> None:
    assert decode(Event, json.loads(json.dumps(encode(event)))) == event


def test_a_whole_job_survives_json() -> None:
    later = EPOCH + timedelta(seconds=1.5)
    job = Job(
        "j", "t", REQUEST, "r2v", S.DONE, "done", 1.0, EPOCH, EPOCH, later, None, 0, None, (Result(0, 7, ARTIFACT),), ()
    )  # fmt: skip
    again = decode(Job, json.loads(json.dumps(encode(job))))
    assert again == job
    assert isinstance(again.state, JobState)
    assert again.finished_at == later


def test_data_of_another_type_is_refused() -> None:
    with pytest.raises(ValidationError):
        decode(Request, encode(ARTIFACT))
    with pytest.raises(ValidationError):
        decode(Handle, {})


def test_records_do_not_change() -> None:
    for record in (REQUEST, ARTIFACT):
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.width = 1  # type: ignore[misc]


def test_the_parts_of_a_stage_have_names_of_their_own() -> None:
    refs = [StageRef("j", "s", chunk, result) for chunk in (0, 1, 10) for result in (0, 1, 10)]
    assert len({ref.part for ref in refs}) == len({ref.key for ref in refs}) == len(refs)
    assert (refs[0].part, refs[0].prefix, StageRef("j", "s", 1, 2).part) == ("0", "", "r2-1")


def test_stage_refs_order_by_job_stage_chunk() -> None:
    refs = [StageRef("b", "a"), StageRef("a", "b", 1), StageRef("a", "b", 0), StageRef("a", "a", 9)]
    assert [str(ref) for ref in sorted(refs)] == ["a/a/9", "a/b/0", "a/b/1", "b/a/0"]
