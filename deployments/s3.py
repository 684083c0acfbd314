"""S3 beside `pyarrow.fs`, which moves the bytes: what that cannot do is done here, over botocore.

- Ending an upload that failed. Arrow's stream completes its upload when it is closed *and* when it is forgotten, so a
  half-read source would become a whole-looking object; aborting the upload first makes that impossible.
- Removing objects without leaving the empty "folder" objects that Arrow writes in their place.
- Finding uploads of killed processes, and signing URLs.

Credentials come from the environment or the machine's role, found by both libraries in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import botocore.session
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError
from pyarrow import fs

from cluster.config import Artifacts
from deployments.storage import StorageError

DELETE_BATCH = 1000  # the most that one DeleteObjects takes


def file_system(options: Artifacts) -> fs.FileSystem:
    """Arrow's S3 client with every bound set."""
    return fs.S3FileSystem(
        region=options.region,
        scheme=options.scheme,
        endpoint_override=options.endpoint,
        connect_timeout=options.connect_timeout_s,
        request_timeout=options.request_timeout_s,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=options.max_attempts),
        allow_delayed_open=True,  # a small file is one request
    )


class Objects:
    """One bucket's objects by key. Methods block, and raise StorageError."""

    def __init__(self, bucket: str, options: Artifacts) -> None:
        self._bucket = bucket
        endpoint = None if options.endpoint is None else f"{options.scheme}://{options.endpoint}"
        session = botocore.session.get_session()
        self._client: Any = session.create_client(
            "s3",
            region_name=options.region,
            endpoint_url=endpoint,
            config=ClientConfig(
                signature_version="s3v4",
                connect_timeout=options.connect_timeout_s,
                read_timeout=options.request_timeout_s,
                retries={"total_max_attempts": options.max_attempts, "mode": "standard"},
                # Arrow does the same: a custom endpoint seldom has a host name for each bucket.
                s3={"addressing_style": "path" if endpoint else "auto"},
            ),
        )

    def delete(self, key: str) -> None:
        """Removes the object and everything under it as a folder; nothing there is fine."""
        self._delete([key, f"{key}/"])
        found: list[str] = []
        for entry in self._pages("list_objects_v2", "Contents", Prefix=f"{key}/"):
            found.append(entry["Key"])
            if len(found) == DELETE_BATCH:
                self._delete(found)
                found = []
        self._delete(found)

    def abort(self, key: str) -> None:
        """Ends every upload of this key that is not complete."""
        for upload in self._pages("list_multipart_uploads", "Uploads", Prefix=key):
            if upload["Key"] == key:
                self._abort(upload)

    def sweep(self, prefix: str, *, min_age_s: float) -> int:
        """Ends uploads under a prefix that began `min_age_s` ago and are not complete; returns how many."""
        newest = time.time() - min_age_s
        old = [
            upload
            for upload in self._pages("list_multipart_uploads", "Uploads", Prefix=prefix)
            if upload["Initiated"].timestamp() <= newest
        ]
        for upload in old:
            self._abort(upload)
        return len(old)

    def signed_url(self, key: str, *, expires_s: int, media_type: str, disposition: str | None) -> str:
        """A URL at which anybody may GET the object until `expires_s` from now. Asks nobody."""
        params = {"Bucket": self._bucket, "Key": key, "ResponseContentType": media_type}
        if disposition is not None:
            params["ResponseContentDisposition"] = disposition
        with _speaking():
            url: str = self._client.generate_presigned_url("get_object", Params=params, ExpiresIn=expires_s)
        return url

    def _delete(self, keys: list[str]) -> None:
        if not keys:
            return
        wanted = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        with _speaking():
            answer = self._client.delete_objects(Bucket=self._bucket, Delete=wanted)
        if refused := answer.get("Errors"):
            raise StorageError(refused[0].get("Code", "refused"))

    def _abort(self, upload: dict[str, Any]) -> None:
        with _speaking(gone="NoSuchUpload"):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def _pages(self, operation: str, field: str, **params: str) -> Iterator[dict[str, Any]]:
        with _speaking():
            for page in self._client.get_paginator(operation).paginate(Bucket=self._bucket, **params):
                yield from page.get(field, ())


@contextmanager
def _speaking(gone: str | None = None) -> Iterator[None]:
    """The errors of botocore as StorageError; the code `gone` is no error."""
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code != gone:
            raise StorageError(code) from error
    except BotoCoreError as error:
        raise StorageError(type(error).__name__) from error
