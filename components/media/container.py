"""What a video or sound file is, from its headers alone: nothing is decoded.

The container is told by the file's first bytes and its demuxer is named, so no file can choose one that opens other
files or addresses (playlists do).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Literal

import av
from av.error import FFmpegError

from components.errors import MediaError

MAX_STREAMS = 16
HEAD_NBYTES = 64
PROBE = {"probesize": str(5_000_000), "analyzeduration": str(5_000_000)}  # bytes; microseconds

_MAGIC = {b"\x1aE\xdf\xa3": "matroska", b"fLaC": "flac", b"OggS": "ogg", b"ID3": "mp3"}


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """A container's headers. `duration_s` is None where they do not say; sizes are None without pictures."""

    kind: Literal["video", "audio"]
    media_type: str  # "video/mp4"
    duration_s: float | None
    width: int | None
    height: int | None
    codecs: tuple[str, ...]  # of the streams, in their order


def sniff(head: bytes) -> str | None:
    """The demuxer's name by a file's first `HEAD_NBYTES` bytes; None for what is no known container."""
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "wav"
    if head[:1] == b"\xff" and head[1:2] and head[1] & 0xE6 == 0xE2:  # a frame of layer III
        return "mp3"
    return next((demuxer for magic, demuxer in _MAGIC.items() if head.startswith(magic)), None)


def probe_media(file: BinaryIO, *, max_pixels: int, max_duration_s: float) -> MediaInfo:
    """Reads the headers of an open, seekable file.

    Raises:
        MediaError: no known container, no stream of pictures or sound, damaged, too many streams, pictures of more
            than `max_pixels`, or longer than `max_duration_s`.
    """
    file.seek(0)
    head = file.read(HEAD_NBYTES)
    demuxer = sniff(head)
    if demuxer is None:
        raise MediaError("The file is no known video or sound; send MP4, MOV, WebM, WAV, MP3, FLAC or Ogg.")
    file.seek(0)
    try:
        with av.open(file, "r", format=demuxer, options=PROBE) as container:
            streams = list(container.streams)
            if len(streams) > MAX_STREAMS:
                raise MediaError(f"The file has {len(streams)} streams; at most {MAX_STREAMS} are accepted.")
            duration_s = None if container.duration is None else container.duration / av.time_base
            videos = [stream.codec_context for stream in container.streams.video if stream.codec_context is not None]
            sounds = [stream.codec_context for stream in container.streams.audio if stream.codec_context is not None]
            codecs = tuple(context.name for context in (*videos, *sounds))
    except FFmpegError as error:
        raise MediaError(f"The file is damaged or cut off: {error.strerror}.") from error
    if not codecs:
        raise MediaError("The file holds neither pictures nor sound that can be read.")
    if duration_s is not None and not 0 < duration_s <= max_duration_s:
        raise MediaError(f"The file lasts {duration_s:g} s; above 0 and at most {max_duration_s:g} s are accepted.")
    for picture in videos:
        if not 0 < picture.width * picture.height <= max_pixels:
            raise MediaError(
                f"The pictures are {picture.width}×{picture.height}; at most {max_pixels} pixels are accepted."
            )
    return MediaInfo(
        kind="video" if videos else "audio",
        media_type=_media_type(demuxer, head, bool(videos)),
        duration_s=duration_s,
        width=videos[0].width if videos else None,
        height=videos[0].height if videos else None,
        codecs=codecs,
    )


def _media_type(demuxer: str, head: bytes, pictures: bool) -> str:
    kind = "video" if pictures else "audio"
    match demuxer:
        case "mp4":
            return "video/quicktime" if pictures and head[8:12] == b"qt  " else f"{kind}/mp4"
        case "matroska":
            return f"{kind}/webm" if b"webm" in head else f"{kind}/x-matroska"
        case "mp3":
            return "audio/mpeg"
    return f"{kind}/{demuxer}"
