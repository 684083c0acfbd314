"""How a caller names a medium, in any dialect: a URL, a data URI, bare base64, or an uploaded file's id.

What a text is follows from its form alone; nothing is fetched, decoded or looked up here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cluster.errors import InvalidRequest
from cluster.records import Artifact

_UUID = re.compile(r"(?:file-)?([0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,31}):", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/]{4,64}={0,2}")
_HEAD_CHARS = 64  # enough to tell base64 from a path or a sentence; the decoder checks the rest


@dataclass(frozen=True, slots=True)
class UrlSource:
    """An http(s) URL, not yet checked."""

    url: str


@dataclass(frozen=True, slots=True)
class DataUriSource:
    """A data URI, not yet decoded; the type that it declares is never believed."""

    uri: str


@dataclass(frozen=True, slots=True)
class Base64Source:
    """Bare base64, not yet decoded."""

    text: str


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file uploaded before, by its id `file-<uuid4>`."""

    file_id: str


@dataclass(frozen=True, slots=True)
class UploadSource:
    """A file that came with the request."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ResultSource:
    """A finished video of the caller's."""

    artifact: Artifact


Kind: TypeAlias = Literal["image", "video", "audio", "mask"]
Source: TypeAlias = UrlSource | DataUriSource | Base64Source | FileSource | UploadSource | ResultSource


@dataclass(frozen=True, slots=True)
class Reference:
    """A medium of a request and the parameter that named it ("images[1]"), for errors."""

    source: Source
    param: str = "images"
    kind: Kind = "image"


def parse_source(text: str, *, param: str | None = None) -> Source:
    """What a text names. A plain UUID v4 is the uploaded file of that number.

    Raises:
        InvalidRequest: none of the five forms; `param` names the request's field in the error.
    """
    if match := _UUID.fullmatch(text[:48].lower()):
        return FileSource(f"file-{match[1]}")
    scheme = _SCHEME.match(text)
    if scheme is not None:
        match scheme[1].lower():
            case "http" | "https":
                return UrlSource(text)
            case "data":
                return DataUriSource(text)
    elif _BASE64.fullmatch(text[:_HEAD_CHARS]):
        return Base64Source(text)
    where = f"{param}: " if param else ""
    raise InvalidRequest(
        f"{where}neither an http(s) URL, a data URI, base64, nor the id of an uploaded file (file-…).", param=param
    )


def references(texts: list[str], param: str, kind: Kind = "image") -> list[Reference]:
    """The sources of a list-valued parameter; errors and references name the place in it. InvalidRequest."""
    named = [(text, f"{param}[{index}]") for index, text in enumerate(texts)]
    return [Reference(parse_source(text, param=name), name, kind) for text, name in named]
