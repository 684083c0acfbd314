"""The playlist's text, by RFC 8216."""

from __future__ import annotations

from itertools import pairwise

from cluster.records import SegmentFile
from deployments.api.hls import files, playlist


def segment(index: int, frames: int = 24, chunk: int = 0) -> SegmentFile:
    folder = f"file:///out/{chunk}-1"
    return SegmentFile(index, f"{folder}/{index}.m4s", f"{folder}/init.mp4", 100, 24 * index, frames, frames / 24)


def test_a_running_job_has_an_open_playlist() -> None:
    assert playlist({0: [segment(0), segment(1)]}, ended=False).splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-TARGETDURATION:1",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:EVENT",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        "#EXT-X-START:TIME-OFFSET=0",
        '#EXT-X-MAP:URI="preview/0/init.mp4"',
        "#EXTINF:1.000000,",
        "preview/0/0.m4s",
        "#EXTINF:1.000000,",
        "preview/0/1.m4s",
    ]


def test_it_only_grows_until_it_ends() -> None:
    segments = [segment(0), segment(1), segment(2, frames=1)]
    texts = [playlist({0: segments[: count + 1]}, ended=False) for count in range(3)]
    texts.append(playlist({0: segments}, ended=True))
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert texts[-1].endswith("#EXTINF:0.041667,\npreview/0/2.m4s\n#EXT-X-ENDLIST\n")


def test_every_chunk_has_its_init_segment() -> None:
    lines = playlist({0: [segment(0)], 1: [segment(0, chunk=1)]}, ended=True).splitlines()
    assert [line for line in lines if "preview/" in line] == [
        '#EXT-X-MAP:URI="preview/0/init.mp4"',
        "preview/0/0.m4s",
        '#EXT-X-MAP:URI="preview/1/init.mp4"',
        "preview/1/0.m4s",
    ]


def test_the_files_of_another_result_say_so() -> None:
    lines = playlist({0: [segment(0)]}, ended=True, result=2).splitlines()
    assert [line for line in lines if "preview/" in line] == [
        '#EXT-X-MAP:URI="preview/0/init.mp4?index=2"',
        "preview/0/0.m4s?index=2",
    ]


def test_no_segment_is_longer_than_the_target() -> None:
    assert "#EXT-X-TARGETDURATION:3\n" in playlist({0: [segment(0), segment(1, frames=49)]}, ended=False)


def test_files_are_found_by_their_names() -> None:
    folder = "file:///out/0-1"
    assert files([segment(0), segment(1)]) == {
        "init.mp4": f"{folder}/init.mp4",
        "0.m4s": f"{folder}/0.m4s",
        "1.m4s": f"{folder}/1.m4s",
    }
    assert files([]) == {}
