"""Files that clients upload once and name in their requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What an uploaded file is, as it passed the door. `kind` is "image", "video" or "audio"."""

    kind: str
    media_type: str
    width: int | None = None  # pixels; None for sound
    height: int | None = None
    duration_s: float | None = None  # None for images, and where the container does not say


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A tenant's file: stored, probed, bounded."""

    id: str  # file-<uuid4>
    tenant_id: str
    filename: str  # as the client called it; never part of a path
    purpose: str
    uri: str
    nbytes: int
    sha256: str
    info: FileInfo
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class NewFile:
    """The same before its row exists. `keep_s` counts from now."""

    id: str
    filename: str
    purpose: str
    uri: str
    nbytes: int
    sha256: str
    info: FileInfo
    keep_s: float


@dataclass(frozen=True, slots=True)
class FilePage:
    """A slice of a listing."""

    files: Sequence[UploadedFile]
    has_more: bool
