"""Trace Context, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.trace import Trace

ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"00-{ID}-{SPAN}-01", Trace(ID, SPAN, True)),
        (f"00-{ID}-{SPAN}-00", Trace(ID, SPAN, False)),
        (f"00-{ID}-{SPAN}-03", Trace(ID, SPAN, True)),  # flags that this version does not know
        (f" 00-{ID}-{SPAN}-01 ", Trace(ID, SPAN, True)),
        (f"cc-{ID}-{SPAN}-01-later", Trace(ID, SPAN, True)),  # a later version may say more
    ],
)
def test_a_callers_header(header: str, expected: Trace) -> None:
    assert Trace.read(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        "", "nonsense", f"00-{ID}-{SPAN}", f"ff-{ID}-{SPAN}-01", f"00-{ID}-{SPAN}-01-more", f"00-{'0' * 32}-{SPAN}-01",
        f"00-{ID.upper()}-{SPAN}-01", f"00-{ID[1:]}-{SPAN}-01", f"00-{ID}-{SPAN}-1", f"00-{ID}-{SPAN}-01\n01",
    ],
)  # fmt: skip
def test_an_invalid_header_says_nothing(header: str) -> None:
    assert Trace.read(header) is None


@given(
    st.from_regex("[0-9a-f]{32}", fullmatch=True).filter(lambda text: text != "0" * 32),
    st.none() | st.from_regex("[0-9a-f]{16}", fullmatch=True).filter(lambda text: text != "0" * 16),
    st.booleans(),
)
def test_what_is_written_can_be_read(trace_id: str, parent: str | None, sampled: bool) -> None:
    trace = Trace(trace_id, parent, sampled)
    assert Trace.read(str(trace)) == trace


def test_spans_have_names_of_their_own() -> None:
    one, other = Trace.new(sampled=True), Trace.new(sampled=True)
    assert one.id != other.id
    assert one.span_id("job") == Trace(one.id, SPAN).span_id("job")  # whoever the caller was
    assert len({one.span_id("job"), one.span_id("text"), other.span_id("job")}) == 3
    assert len(one.span_id("job")) == 16
