"""Joining segments into the final file, and looking into finished files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from components.errors import MediaError
from components.media.boxes import top_level
from components.media.soundtrack import Sound, copy_pictures


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video file is. `frames` is counted, not believed; `faststart`: `moov` comes before the first `mdat`."""

    width: int
    height: int
    frames: int
    duration_s: float
    fps: float
    codec: str  # "h264"
    pix_fmt: str  # "yuv420p"
    faststart: bool


class Chain:
    """Pieces of a file as one readable, unseekable file; holds one piece at a time."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._piece = memoryview(b"")

    def read(self, nbytes: int) -> bytes:
        """Exactly `nbytes`, fewer only at the end: the demuxer takes a short read for the end of the file."""
        data = bytearray()
        while len(data) < nbytes:
            if not self._piece:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._piece = memoryview(piece)
            taken = self._piece[: nbytes - len(data)]
            data += taken
            self._piece = self._piece[len(taken) :]
        return bytes(data)


def joined(chunks: Iterable[tuple[bytes, Iterable[bytes]]]) -> Iterator[bytes]:
    """Several chunks' segments as those of one video: the first's init segment, everybody's media segments.

    Args:
        chunks: (init segment, media segments) of each, in order. Their encoders were told where they begin.

    Raises:
        MediaError: a chunk was encoded with other parameters (size, rate, profile) than the first.
    """
    first: bytes | None = None
    for index, (init, media) in enumerate(chunks):
        if first is None:
            first = init
            yield init
        elif init != first:
            raise MediaError(f"Chunk {index} is encoded with other parameters than the first; they cannot be joined.")
        yield from media


def remux(
    segments: Iterable[bytes],
    out_path: str | os.PathLike[str],
    *,
    frames: int | None = None,
    container: str = "mp4",
    sound: Sound | None = None,
) -> int:
    """Stream-copies an init segment and the media segments behind it into one faststart file; returns its frames.

    The coded pictures are untouched. The pieces may be cut anywhere, so an open file or a generator that fetches
    one segment at a time will do. `frames` is how many there must be: a missing last segment shows in nothing else.
    `container` is "mp4" or "mov", which hold the same boxes under another brand. `sound` becomes AAC beside them.
    On any error `out_path` does not exist.

    Raises:
        MediaError: the segments hold no video or not that many frames, or are damaged or cut off; or the sound is.
        OSError: `out_path` cannot be written.
    """
    out = Path(out_path)
    try:
        copied = _copy(Chain(segments), out, container, sound)
        if not copied or (frames is not None and copied != frames):
            wanted = "some" if frames is None else frames
            raise MediaError(f"The segments hold {copied} frames; {wanted} were expected.")
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    return copied


def _copy(source: Chain, out_path: Path, container: str, sound: Sound | None) -> int:
    try:
        with open_mp4(source) as video:
            stream = video_stream(video)
            options = {"movflags": "faststart", "fflags": "+bitexact"}
            with av.open(out_path, "w", format=container, options=options) as out:
                copy = out.add_stream_from_template(stream)
                return copy_pictures(out, assigned(video_packets(video, stream), copy), sound)
    except FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise MediaError(f"The segments cannot be joined: {error.strerror}.") from error


def assigned(packets: Iterable[Packet[VideoStream]], stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The packets as those of another file's stream."""
    for packet in packets:
        packet.stream = stream
        yield packet


def probe_video(video: str | os.PathLike[str] | bytes) -> VideoInfo:
    """Reads an MP4 file or its bytes, packet by packet, without decoding.

    Raises:
        MediaError: not an MP4 with a video track, or damaged or cut off.
        OSError: the file cannot be read.
    """
    with io.BytesIO(video) if isinstance(video, bytes) else open(video, "rb") as file:
        kinds = [kind for kind in top_level(file) if kind in {"moov", "mdat"}]
        file.seek(0)
        try:
            with open_mp4(file) as container:
                stream = video_stream(container)
                frames = ticks = 0
                for packet in video_packets(container, stream):
                    frames += 1
                    ticks += packet.duration or 0
                codec = stream.codec_context
                duration_s = Fraction(ticks) * (stream.time_base or 0)
                return VideoInfo(
                    width=codec.width,
                    height=codec.height,
                    frames=frames,
                    duration_s=float(duration_s),
                    fps=float(frames / duration_s) if duration_s else 0.0,
                    codec=codec.name,
                    pix_fmt=str(codec.pix_fmt),
                    faststart=kinds[:1] == ["moov"],
                )
        except FFmpegError as error:
            raise MediaError(f"The file is not a readable MP4: {error.strerror}.") from error


def open_mp4(source: Chain | BinaryIO) -> InputContainer:
    # The format is named, so no file can choose a demuxer that opens other files or addresses (playlists do).
    return av.open(source, "r", format="mp4")


def video_stream(container: InputContainer) -> VideoStream:
    # A track whose codec is unknown, or whose description is cut off, comes without a codec context.
    if not container.streams.video or container.streams.video[0].codec_context is None:
        raise MediaError("The MP4 has no video track that can be read.")
    return container.streams.video[0]


def video_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise MediaError("The MP4 is cut off in the middle of a frame.")
        if packet.size:  # the demuxer ends with an empty one
            yield packet
