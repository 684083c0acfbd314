"""Segments as an HLS media playlist (RFC 8216)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cluster.records import SegmentFile

MEDIA_TYPE = "application/vnd.apple.mpegurl"
INIT_MEDIA_TYPE = "video/mp4"
SEGMENT_MEDIA_TYPE = "video/iso.segment"
INIT_NAME = "init.mp4"


def files(segments: Sequence[SegmentFile]) -> Mapping[str, str]:
    """Where a chunk's files lie, by the name that the playlist gives them. Attempts of one chunk share their names and
    their init segment's bytes, so a list that a newer attempt is replacing plays on.
    """
    names = {_name(segment): segment.uri for segment in segments}
    return names | {INIT_NAME: segments[0].init_uri} if segments else {}


def playlist(chunks: Mapping[int, Sequence[SegmentFile]], *, ended: bool, result: int = 0) -> str:
    """The playlist of everything encoded so far of a result; URLs are relative to `…/preview`.

    An EVENT playlist only grows, so a player may seek back to its begin; `ended` closes it. Chunks continue one
    timeline, so there is no discontinuity between them.
    """
    longest_s = max((segment.duration_s for segments in chunks.values() for segment in segments), default=0.0)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{max(1, math.ceil(longest_s))}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:EVENT",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        "#EXT-X-START:TIME-OFFSET=0",  # else a player begins near the end of what is not ended
    ]
    which = f"?index={result}" if result else ""
    for chunk, segments in chunks.items():
        lines.append(f'#EXT-X-MAP:URI="preview/{chunk}/{INIT_NAME}{which}"')
        for segment in segments:
            lines += [f"#EXTINF:{segment.duration_s:.6f},", f"preview/{chunk}/{_name(segment)}{which}"]
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def _name(segment: SegmentFile) -> str:
    return f"{segment.index}.m4s"
