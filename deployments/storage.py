"""From a root and its options to a file system: a local folder, S3, Google Cloud Storage, or what Arrow knows by URI.

    /data/artifacts · file:///data/artifacts · s3://bucket/prefix · gs://bucket/prefix

A root never holds credentials: those come from the environment or the machine's role.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import fs

from cluster.config import Artifacts
from cluster.errors import ConfigError, NotFound, Unavailable

if TYPE_CHECKING:
    from deployments.s3 import Objects

RETRY_S = 5.0
_AWS_CODE = re.compile(r"AWS Error ([A-Z_]+)")
_BUCKET = re.compile(
    r"(?P<scheme>s3|gs)://(?P<bucket>[a-z0-9][a-z0-9._-]{1,61}[a-z0-9])(?P<prefix>(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*)/?"
)
_CREDENTIALS = re.compile(r"[a-z0-9]+://[^/]*@|.*\?")


class StorageError(OSError):
    """The object store refused or could not be reached; the message is its error code."""


@dataclass(frozen=True, slots=True)
class Storage:
    """An open file system, and where in it the root is."""

    files: fs.FileSystem
    base: str  # the root inside `files`, without a trailing slash
    uri: str  # the root as the beginning of every file's URI
    local: bool = False
    objects: Objects | None = None  # of S3 only

    def object_key(self, path: str) -> str:
        """A path inside `files` as a key of its bucket."""
        return path.partition("/")[2]


def open_storage(root: str, options: Artifacts) -> Storage:
    """The storage at a root; nothing is asked over the network yet. ConfigError."""
    bucket = _BUCKET.fullmatch(root)
    if bucket is not None:
        base = bucket["bucket"] + bucket["prefix"]
        if bucket["scheme"] == "s3":
            return _s3(bucket["bucket"], base, options)
        return Storage(_gcs(options), base, f"gs://{base}")
    if "://" in root and not root.startswith("file://") and _CREDENTIALS.match(root):
        message = "artifacts.root must hold no credentials and no options; credentials come from the environment."
        raise ConfigError(message)
    if root.startswith(("s3:", "gs:")):
        raise ConfigError(
            "artifacts.root must look like s3://bucket/prefix; the bucket's name or the prefix is not one."
        )
    try:
        files, base = fs.FileSystem.from_uri(root) if "://" in root else (fs.LocalFileSystem(), root)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise ConfigError(f"artifacts.root: {root!r} is not a folder or a known file system.") from error
    if isinstance(files, fs.LocalFileSystem):
        folder = Path(base).absolute()
        return Storage(files, str(folder).rstrip("/"), folder.as_uri(), local=True)
    return Storage(files, base.rstrip("/"), root.rstrip("/"))


def _s3(bucket: str, base: str, options: Artifacts) -> Storage:
    try:
        from deployments.s3 import Objects, file_system  # noqa: PLC0415 (an extra: only installed where S3 is used)
    except ModuleNotFoundError as error:
        message = "artifacts.root: S3 needs the package botocore; install skyreels-serve with the extra s3."
        raise ConfigError(message) from error
    return Storage(file_system(options), base, f"s3://{base}", objects=Objects(bucket, options))


def _gcs(options: Artifacts) -> fs.FileSystem:
    return fs.GcsFileSystem(
        scheme=options.scheme,
        endpoint_override=options.endpoint,
        retry_time_limit=timedelta(seconds=options.request_timeout_s * options.max_attempts),
    )


@contextmanager
def speaking(action: str) -> Iterator[None]:
    """Turns a storage's errors into the project's: NotFound, Unavailable. Messages hold no path: they reach clients."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and action != "write":
            raise NotFound("The file does not exist (any more).") from error
        code = _AWS_CODE.search(str(error))
        reason = code[1] if code else os.strerror(error.errno) if error.errno else "storage error"
        if isinstance(error, StorageError):
            reason = str(error)
        raise Unavailable(f"The artifact store cannot {action}: {reason}.", retry_after_s=RETRY_S) from error
