"""What a request's media are: each is told by its bytes, and read as far as its place in the request demands."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, TypeAlias

from cluster.canonical import Draft, Given, needed_frames
from cluster.config import MediaLimits
from cluster.errors import Damaged, InvalidRequest, MediaRejected, NotFound
from cluster.files import UploadedFile
from cluster.records import Artifact, Media
from cluster.registry import Known
from components.errors import MediaError
from components.media.container import probe_media
from components.media.image import probe
from components.media.mix import Heard, check
from components.media.sound import ENCODER_RATE, probe_sound
from components.media.source import SourceVideo
from deployments.api.sources import Kind, Reference
from deployments.artifacts import ArtifactStore

_SIDE = 16
File: TypeAlias = bytes | UploadedFile | Artifact
_NEEDED = {"image": "an image", "mask": "an image", "video": "a video", "audio": "a sound"}


@dataclass(frozen=True, slots=True)
class Seen:
    """One medium, not stored yet. Of a video: its frames at the model's rate; of a sound: those that it lasts."""

    kind: Kind
    media: Media
    frames: int = 0


class Examiner:
    """Looks into media before anything is stored."""

    def __init__(self, artifacts: ArtifactStore, limits: MediaLimits) -> None:
        self._artifacts = artifacts
        self._limits = limits

    async def look(self, model: Known, draft: Draft, reference: Reference, file: File) -> Seen:
        """Reads what must be known of a medium.

        Raises:
            MediaRejected: it is of another kind, damaged, or beyond a bound.
            Unavailable: the artifact store is not reachable.
        """
        with naming(reference.param):
            kind = reference.kind
            found = _kind_of(file)
            wanted = "image" if kind == "mask" else kind
            if found is not None and found != wanted:
                raise MediaRejected(f"the file is {_media_type(file)}; {_NEEDED[kind]} is needed.")
            if wanted == "image":
                return await self._image(kind, file)
            opened = io.BytesIO(file) if isinstance(file, bytes) else await self._artifacts.open_input(file.uri)
            look = self._clip if kind == "video" else self._sound
            try:
                return await asyncio.to_thread(look, model, draft, opened)
            finally:
                await asyncio.to_thread(opened.close)

    async def _image(self, kind: Kind, file: File) -> Seen:
        if isinstance(file, UploadedFile):
            return Seen(kind, _unstored(file.info.media_type, file.info.width, file.info.height))
        if isinstance(file, Artifact):
            raise MediaRejected("a finished video is no image.")
        image = await asyncio.to_thread(probe, file, max_pixels=self._limits.max_image_pixels)
        return Seen(kind, _unstored(image.media_type, image.width, image.height))

    def _clip(self, model: Known, draft: Draft, file: BinaryIO) -> Seen:
        limits = self._limits
        video = SourceVideo(file, max_pixels=limits.max_image_pixels, max_duration_s=model.limits.max_media_s)
        # So small because only that they can be read is of interest.
        video.tail(needed_frames(model, draft), height=_SIDE, width=_SIDE, fps=model.fps)
        info = video.info
        if draft.include_source and info.sound:
            check(Heard(file, Fraction(info.duration_s), video.begins_s(model.fps)))
        file.seek(0)
        media = Media(
            uri="",
            media_type=probe_media(file, max_pixels=limits.max_image_pixels, max_duration_s=math.inf).media_type,
            nbytes=0,
            sha256="",
            width=info.width,
            height=info.height,
            duration_s=info.duration_s,
            fps=info.frames / info.duration_s if info.duration_s else None,
            has_audio=info.sound,
        )
        return Seen("video", media, video.count(model.fps))

    def _sound(self, model: Known, draft: Draft, file: BinaryIO) -> Seen:
        info = probe_sound(file, max_seconds=model.limits.max_media_s)
        file.seek(0)
        media_type = probe_media(file, max_pixels=self._limits.max_image_pixels, max_duration_s=math.inf).media_type
        media = Media("", media_type, 0, "", duration_s=info.duration_s, has_audio=True)
        return Seen("audio", media, -(-info.samples * model.fps // ENCODER_RATE))


def given_of(seen: Sequence[Seen], media: Sequence[Media] | None = None) -> Given:
    """A request's media by their kinds, as seen, or as stored since."""
    stored = media if media is not None else [item.media for item in seen]

    def of(kind: Kind) -> tuple[Media, ...]:
        return tuple(medium for item, medium in zip(seen, stored, strict=True) if item.kind == kind)

    videos = [item for item in seen if item.kind == "video"]
    return Given(
        images=of("image"),
        video=next(iter(of("video")), None),
        audio=of("audio"),
        masks=of("mask"),
        film_frames=videos[0].frames if videos else 0,
        voice_frames=max((item.frames for item in seen if item.kind == "audio"), default=0),
    )


@contextmanager
def naming(param: str) -> Iterator[None]:
    """Errors of one medium name the parameter that it came by."""
    try:
        yield
    except InvalidRequest as error:
        raise type(error)(f"{param}: {error.message}", param=param) from error
    except NotFound as error:
        raise InvalidRequest(f"{param}: {error.message}", param=param) from error
    except Damaged as error:
        raise MediaRejected(f"{param}: {error.message} Upload it again.", param=param) from error
    except MediaError as error:
        raise MediaRejected(f"{param}: {error}", param=param) from error


def _unstored(media_type: str, width: int | None, height: int | None) -> Media:
    return Media("", media_type, 0, "", width, height)


def _kind_of(file: File) -> str | None:
    """What is known already; None for bytes."""
    if isinstance(file, UploadedFile):
        return file.info.kind
    return "video" if isinstance(file, Artifact) else None


def _media_type(file: File) -> str:
    if isinstance(file, UploadedFile):
        return f"{file.info.media_type} ({file.id})"
    return file.media_type if isinstance(file, Artifact) else "of another kind"
