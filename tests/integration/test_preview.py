"""A player at the HLS preview of a real system: before the video is done, after it, and across a killed decoder."""

from __future__ import annotations

import hashlib
import io
import re
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from tests.integration.system import System, until

pytestmark = pytest.mark.integration

LONG = {"seconds": "5"}


def hashes(source: Any, count: int | None = None) -> list[str]:
    """The decoded frames of a file, or of the playlist at a URL from its beginning on."""
    options = {"live_start_index": "0"} if isinstance(source, str) else {}
    with av.open(source, options=options, timeout=60) as video:
        frames = islice(video.decode(video=0), count)
        return [hashlib.md5(frame.to_ndarray().tobytes(), usedforsecurity=False).hexdigest() for frame in frames]


def seconds_listed(playlist: str) -> int:
    return playlist.count("#EXTINF:1.000000,")


def begun(system: System, video_id: str, least: int = 1) -> str:
    """The playlist of a video that is not done, once it lists some segments."""

    def probe() -> str | None:
        answer = system.client.get(f"/v1/videos/{video_id}/preview")
        assert answer.status_code in (200, 409), answer.text
        return answer.text if answer.is_success and seconds_listed(answer.text) >= least else None

    playlist = until(f"{video_id} has {least} segments", probe)
    assert "#EXT-X-ENDLIST" not in playlist
    return playlist


def preview_folder(system: System, video_id: str) -> Path:
    return system.folder / "state" / "artifacts" / "jobs" / video_id / "outputs" / "preview"


def test_a_player_sees_the_final_frames_early(deep: System) -> None:
    job = deep.submit(**LONG)
    url = f"{deep.url}/v1/videos/{job['id']}/preview"
    listed = 24 * seconds_listed(begun(deep, job["id"]))
    early = hashes(url, listed)
    assert len(early) == listed >= 24
    deep.finish(job["id"])
    playlist = deep.client.get(url)
    assert playlist.headers["content-type"] == "application/vnd.apple.mpegurl"
    assert playlist.text.endswith("#EXT-X-ENDLIST\n")
    final = hashes(io.BytesIO(deep.content(job["id"])))
    assert len(final) == len(set(final)) == job["frames"] == 121
    assert hashes(url) == final
    assert early == final[:listed]
    for path in re.findall(r"preview/[\w/.]+", playlist.text):
        assert deep.client.head(f"/v1/videos/{job['id']}/{path}").status_code == 200
    assert deep.client.head(f"/v1/videos/{job['id']}/content").headers["content-length"]
    assert deep.client.delete(f"/v1/videos/{job['id']}").is_success
    assert deep.client.get(url).status_code == 404
    until("its files are gone", lambda: not preview_folder(deep, job["id"]).exists())


@pytest.mark.long
def test_a_killed_decoder_is_invisible_to_the_player(deep: System) -> None:
    job = deep.submit(**LONG)
    before = begun(deep, job["id"], least=2)
    deep.replica("VaeRoom").kill()
    lists = [before]

    def done() -> bool:
        lists.append(deep.client.get(f"/v1/videos/{job['id']}/preview").text)
        return lists[-1].endswith("#EXT-X-ENDLIST\n")

    until("the playlist ends", done)
    assert all(later.startswith(earlier) for earlier, later in pairwise(lists))
    finished = deep.finish(job["id"])
    assert finished["attempts"] == 1
    assert hashes(f"{deep.url}/v1/videos/{job['id']}/preview") == hashes(io.BytesIO(deep.content(job["id"])))
    until("one attempt's files are left", lambda: len(list(preview_folder(deep, job["id"]).iterdir())) == 1)
