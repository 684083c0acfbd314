"""Where files lie: inputs, working values and results, on a local disk or in an object store.

    jobs/{job_id}/inputs|work|outputs/…     files/{file_id}/…     cache/…

Writes are named by key and return a URI and a hash; everything afterwards goes by URI, so a record that holds one needs
no store to be understood. A file appears whole or not at all: local writes are atomic and durable
(`deployments.durable`), an object is visible when its upload is complete, and an upload that fails is aborted (on S3; a
file system that cannot abort shows the cut-off object until it is removed a moment later).

Methods that touch the storage are coroutines; their work runs in the event loop's threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, cast

from pyarrow import fs

from cluster.config import Artifacts, Config
from cluster.errors import ConfigError, Damaged, NotFound, Unavailable
from deployments import durable
from deployments.storage import open_storage, speaking
from deployments.upload import upload

if TYPE_CHECKING:
    from deployments.s3 import Objects

Area = Literal["inputs", "work", "outputs"]
CACHE = "cache"  # the folder of encodings that outlive their jobs

_CHUNK_NBYTES = 2**20
_UPLOAD_AGE_S = 3600.0  # far longer than any upload takes
# A segment never begins with a dot: no "..", no hidden file, no clash with temporary files.
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,199})*")


class Stored(NamedTuple):
    """What was written. `sha256` is hexadecimal."""

    uri: str
    nbytes: int
    sha256: str


class Entry(NamedTuple):
    """A file as a listing shows it; `age_s` since it was written."""

    key: str
    nbytes: int
    age_s: float


def job_prefix(job_id: str, area: Area | None = None) -> str:
    """The folder of a job, or of one of its areas."""
    return f"jobs/{job_id}" if area is None else f"jobs/{job_id}/{area}"


def job_key(job_id: str, area: Area, name: str) -> str:
    """The key of one file of a job; `name` may hold slashes."""
    return f"{job_prefix(job_id, area)}/{name}"


def file_prefix(file_id: str) -> str:
    """The folder of an uploaded file."""
    return f"files/{file_id}"


class ArtifactStore:
    """Files under one root. Raises Unavailable when the storage fails and NotFound when a file is not there."""

    def __init__(self, root: str, options: Artifacts | None = None) -> None:
        """`root` is a local folder or a URI (`deployments.storage`). ConfigError."""
        self._options = options or Artifacts()
        self._storage = open_storage(root, self._options)
        self._fs, self._base, self._root_uri = self._storage.files, self._storage.base, self._storage.uri
        self._local = self._storage.local
        self._objects = self._storage.objects

    @classmethod
    def of(cls, config: Config) -> ArtifactStore:
        """The store that a configuration names. ConfigError."""
        return cls(config.artifacts_root, config.artifacts)

    async def check(self) -> None:
        """Writes, reads and deletes a probe, so that a store which cannot be used is known at once. ConfigError."""
        key = f"probe-{uuid.uuid4().hex}"
        data = key.encode()
        try:
            stored = await self.put_bytes(key, data)
            await self.get_bytes(stored.uri, stored.sha256)
            await self.delete_tree(key)
        except (Unavailable, NotFound, Damaged) as error:
            raise ConfigError(
                f"artifacts.root: {self._root_uri} cannot be written and read back: {error.message} "
                "Check that it exists, the endpoint and region, and this machine's credentials."
            ) from error

    def uri(self, key: str) -> str:
        """The URI a key has or would have. ValueError for a key outside the layout's alphabet."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not an artifact key: slashes between names of letters, digits, '_', '.', '-'")
        return f"{self._root_uri}/{key}"

    async def put_bytes(self, key: str, data: bytes) -> Stored:
        """Writes one file, over an earlier one of the same key. Unavailable, ValueError."""
        return await asyncio.to_thread(self._put, key, (data,))

    async def put_pieces(self, key: str, pieces: Iterable[bytes | memoryview]) -> Stored:
        """Writes one file in pieces, over an earlier one of the same key. Unavailable, ValueError."""
        return await asyncio.to_thread(self._put, key, pieces)

    async def put_file(self, key: str, path: str | os.PathLike[str]) -> Stored:
        """Copies a local file in, a piece at a time; the source stays.

        Raises:
            OSError: `path` cannot be opened.
            Unavailable: reading or writing failed.
            ValueError: not a key.
        """
        return await asyncio.to_thread(self._put_file, key, path)

    async def copy(self, uri: str, key: str, *, sha256: str) -> Stored:
        """Copies a stored file to a key, inside the storage where that can. NotFound, Unavailable, ValueError, and
        Damaged where the bytes pass through here.
        """
        return await asyncio.to_thread(self._copy, uri, key, sha256)

    async def get_bytes(self, uri: str, sha256: str | None = None) -> bytes:
        """The whole file, and exactly the one with this hash where it is given. NotFound, Unavailable, Damaged."""
        return await asyncio.to_thread(self._get_bytes, uri, sha256)

    async def signed_url(self, uri: str, *, media_type: str, disposition: str | None = None) -> str | None:
        """Where a client may fetch the file itself for a while; None when it must come through the Api.

        Raises:
            NotFound: not a URI of this store. (Whether the file is there is not asked.)
            Unavailable: there are no credentials to sign with.
        """
        if self._objects is None or not self._options.redirect:
            return None
        return await asyncio.to_thread(self._signed_url, self._objects, uri, media_type, disposition)

    async def open_input(self, uri: str) -> BinaryIO:
        """An open, seekable file for reading parts of it; its reads block. NotFound, Unavailable (reads: OSError)."""
        return await asyncio.to_thread(self._open_input, uri)

    async def size(self, uri: str) -> int:
        """The file's length in bytes. NotFound, Unavailable."""
        return await asyncio.to_thread(self._size, uri)

    async def exists(self, uri: str) -> bool:
        """Whether the URI names a file. Unavailable, NotFound for the URI of another store."""
        info = await asyncio.to_thread(self._info, uri)
        return bool(info.type == fs.FileType.File)

    async def keys(self, prefix: str) -> Sequence[str]:
        """The keys of all files under a folder, sorted; none when it does not exist. Unavailable, ValueError."""
        return await asyncio.to_thread(self._keys, prefix)

    async def entries(self, prefix: str) -> Sequence[Entry]:
        """All files under a folder with their sizes and ages; none when it does not exist. Unavailable, ValueError."""
        return await asyncio.to_thread(self._entries, prefix)

    def pieces(self, files: Iterable[Stored]) -> Iterator[bytes]:
        """The files one after the other, each whole. Blocks: for a thread of one's own. As `get_bytes`."""
        return (self._get_bytes(file.uri, file.sha256) for file in files)

    async def delete_tree(self, prefix: str) -> None:
        """Removes the file or folder of this key and everything under it; nothing there is fine. Unavailable."""
        await asyncio.to_thread(self._delete_tree, prefix)

    async def children(self, prefix: str) -> list[str]:
        """Names of the folders directly under a key. Unavailable."""
        return await asyncio.to_thread(self._children, prefix)

    async def age_s(self, prefix: str) -> float:
        """Seconds since anything under a folder was written last; infinite when there is no file. Unavailable."""
        return await asyncio.to_thread(self._age_s, prefix)

    async def sweep_temp(self, *, min_age_s: float = 60.0) -> int:
        """Removes what killed writers left: temporary files, or uploads older than an hour that were never completed;
        returns how many. Call at start. Unavailable.
        """
        return await asyncio.to_thread(self._sweep_temp, min_age_s)

    def local_path(self, uri: str) -> Path | None:
        """Where the file is on this machine's disk (for mapping or sending it); None in an object store. NotFound."""
        return Path(self._path(uri)) if self._local else None

    def _put_file(self, key: str, path: str | os.PathLike[str]) -> Stored:
        with open(path, "rb") as file:
            return self._put(key, iter(lambda: file.read(_CHUNK_NBYTES), b""))

    def _put(self, key: str, chunks: Iterable[bytes | memoryview]) -> Stored:
        uri = self.uri(key)
        path = self._path(uri)
        with speaking("write"):
            nbytes, sha256 = durable.write(Path(path), chunks) if self._local else upload(self._storage, path, chunks)
        return Stored(uri, nbytes, sha256)

    def _copy(self, uri: str, key: str, sha256: str) -> Stored:
        target = self.uri(key)
        if self._local:
            with self._open_input(uri) as file:
                stored = self._put(key, iter(lambda: file.read(_CHUNK_NBYTES), b""))
            if stored.sha256 != sha256:
                self._delete_tree(key)
                raise _damaged()
            return stored
        nbytes = self._size(uri)
        with speaking("copy"):
            if self._objects is None:  # a store with real folders
                self._fs.create_dir(self._path(target).rpartition("/")[0], recursive=True)
            self._fs.copy_file(self._path(uri), self._path(target))
        return Stored(target, nbytes, sha256)

    def _open_input(self, uri: str) -> BinaryIO:
        path = self._path(uri)
        with speaking("read"):
            return cast(BinaryIO, self._fs.open_input_file(path))

    def _get_bytes(self, uri: str, sha256: str | None) -> bytes:
        with self._open_input(uri) as file, speaking("read"):
            data = file.read()
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise _damaged()
        return data

    def _size(self, uri: str) -> int:
        info = self._info(uri)
        if info.type != fs.FileType.File:
            raise NotFound("The file does not exist (any more).")
        return cast(int, info.size)

    def _signed_url(self, objects: Objects, uri: str, media_type: str, disposition: str | None) -> str:
        key = self._storage.object_key(self._path(uri))
        with speaking("sign a URL"):
            return objects.signed_url(
                key, expires_s=self._options.redirect_s, media_type=media_type, disposition=disposition
            )

    def _keys(self, prefix: str) -> list[str]:
        return sorted(entry.key for entry in self._entries(prefix))

    def _entries(self, prefix: str) -> list[Entry]:
        selector = fs.FileSelector(self._path(self.uri(prefix)), allow_not_found=True, recursive=True)
        with speaking("list"):
            found = self._fs.get_file_info(selector)
        start, now = len(self._base) + 1, time.time()
        files = ((info.path[start:], info) for info in found if info.type == fs.FileType.File)
        return [
            Entry(key, info.size, now - (info.mtime_ns or 0) / 1e9)
            for key, info in files
            if _KEY.fullmatch(key)  # temporary files are no keys
        ]

    def _delete_tree(self, prefix: str) -> None:
        uri = self.uri(prefix)
        path = self._path(uri)
        if self._objects is not None:
            with speaking("delete"):
                return self._objects.delete(self._storage.object_key(path))
        kind = self._info(uri).type
        try:
            with speaking("delete"):
                if kind == fs.FileType.Directory:
                    self._fs.delete_dir(path)
                elif kind == fs.FileType.File:
                    self._fs.delete_file(path)
        except NotFound:  # somebody else was faster
            return None
        return None

    def _children(self, prefix: str) -> list[str]:
        selector = fs.FileSelector(self._path(self.uri(prefix)), allow_not_found=True)
        with speaking("list"):
            found = self._fs.get_file_info(selector)
        return [info.base_name for info in found if info.type == fs.FileType.Directory]

    def _age_s(self, prefix: str) -> float:
        path = self._path(self.uri(prefix))
        with speaking("list"):
            under = self._fs.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
            found = [*under, self._fs.get_file_info(path)]
        # Folders of an object store have no time of their own.
        return time.time() - max((info.mtime_ns / 1e9 for info in found if info.mtime_ns), default=-math.inf)

    def _sweep_temp(self, min_age_s: float) -> int:
        with speaking("sweep"):
            if self._objects is not None:
                prefix = self._storage.object_key(f"{self._base}/")
                return self._objects.sweep(prefix, min_age_s=max(min_age_s, _UPLOAD_AGE_S))
            return durable.sweep(Path(self._base), min_age_s=min_age_s) if self._local else 0

    def _path(self, uri: str) -> str:
        """The path inside the file system; the key is checked again, as the URI may come from anywhere."""
        key = uri.removeprefix(f"{self._root_uri}/")
        if key == uri or not _KEY.fullmatch(key):
            raise NotFound("The file lies outside this artifact store; was artifacts.root changed?")
        return f"{self._base}/{key}"

    def _info(self, uri: str) -> fs.FileInfo:
        path = self._path(uri)
        with speaking("read"):
            return self._fs.get_file_info(path)


def _damaged() -> Damaged:
    message = "A stored file is damaged: it does not hold the bytes that were written."
    return Damaged(message, retryable=True)
