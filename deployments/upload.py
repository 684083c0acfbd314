"""Objects that are either whole or not there: the object store's counterpart of `deployments.durable`.

An object is visible when its upload is complete. Arrow completes an upload when its stream is closed and also when it
is only forgotten; so one that fails is aborted where that can be done (S3), and removed a moment later where not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain

import pyarrow as pa

from deployments.storage import Storage

# More than Arrow's part size: an upload that has got this far is a multipart one, which can be aborted.
HEAD_NBYTES = 16 * 2**20


def upload(storage: Storage, path: str, chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Writes the chunks to an object; returns (nbytes, sha256 as hex). A source that fails early has asked for nothing.

    Raises:
        OSError: the object store or the source failed.
    """
    source = iter(chunks)
    head: list[bytes | memoryview] = []
    while sum(map(len, head)) < HEAD_NBYTES and (chunk := next(source, None)) is not None:
        head.append(chunk)
    digest = hashlib.sha256()
    nbytes = 0
    stream = _open(storage, path)
    try:
        for chunk in chain(head, source):
            stream.write(chunk)
            digest.update(chunk)
            nbytes += len(chunk)
    except BaseException:
        _abandon(storage, stream, path)
        raise
    stream.close()
    return nbytes, digest.hexdigest()


def _open(storage: Storage, path: str) -> pa.NativeFile:
    try:
        return storage.files.open_output_stream(path)
    except FileNotFoundError:  # a store with real folders
        storage.files.create_dir(path.rpartition("/")[0], recursive=True)
        return storage.files.open_output_stream(path)


def _abandon(storage: Storage, stream: pa.NativeFile, path: str) -> None:
    key = storage.object_key(path)
    if storage.objects is not None:
        with suppress(OSError):
            storage.objects.abort(key)
    with suppress(OSError):
        stream.close()  # which an aborted upload refuses
        if storage.objects is None:
            storage.files.delete_file(path)
        else:
            storage.objects.delete(key)
