import io
import struct

import pytest

from components.errors import MediaError
from components.media.boxes import BoxSplitter, children, fragment_frames, header, top_level


def box(kind: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def large_box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4sQ", 1, kind, 16 + len(payload)) + payload


def trun(frames: int) -> bytes:
    return box(b"trun", struct.pack(">II", 0, frames))


def test_header_of_short_and_long_boxes():
    assert header(box(b"free", b"abc")) == ("free", 8, 11)
    assert header(large_box(b"mdat", b"abc")) == ("mdat", 16, 19)
    assert header(b"\0\0\0\x08fre") is None
    assert header(large_box(b"mdat", b"abc")[:15]) is None


@pytest.mark.parametrize("data", [b"\0\0\0\x07free", struct.pack(">I4sQ", 1, b"mdat", 15)])
def test_contradicting_lengths(data):
    with pytest.raises(MediaError):
        header(data)


def test_children():
    data = box(b"ftyp", b"isom") + large_box(b"free", b"xy") + struct.pack(">I4s", 0, b"mdat") + b"to the end"
    assert [(kind, bytes(payload)) for kind, payload in children(data)] == [
        ("ftyp", b"isom"), ("free", b"xy"), ("mdat", b"to the end"),
    ]  # fmt: skip
    with pytest.raises(MediaError):
        list(children(box(b"ftyp", b"isom")[:-1]))


def test_top_level():
    data = box(b"ftyp", b"isom") + box(b"moov", box(b"trak")) + large_box(b"mdat", b"x" * 100)
    assert list(top_level(io.BytesIO(data))) == ["ftyp", "moov", "mdat"]
    with pytest.raises(MediaError):
        list(top_level(io.BytesIO(data[:-1])))
    with pytest.raises(MediaError):
        list(top_level(io.BytesIO(data + b"\0\0\0")))
    assert list(top_level(io.BytesIO(b""))) == []


def test_fragment_frames_sums_every_run():
    moof = box(
        b"moof", box(b"mfhd", b"\0" * 8) + box(b"traf", box(b"tfhd") + trun(24) + trun(1)) + box(b"traf", trun(2))
    )
    assert fragment_frames(moof) == 27


@pytest.mark.parametrize("piece", [1, 7, 8, 1000])
def test_splitter_gives_whole_boxes_only(piece):
    data = box(b"moof", b"a" * 20) + large_box(b"mdat", b"b" * 50) + box(b"moof", b"c")
    splitter, taken = BoxSplitter(), []
    for start in range(0, len(data), piece):
        part = data[start : start + piece]
        assert splitter.write(part) == len(part)
        taken += splitter.take()
    assert [kind for kind, _ in taken] == ["moof", "mdat", "moof"]
    assert b"".join(whole for _, whole in taken) == data
    assert splitter.take() == []
