"""An S3 on this machine: moto's server in a process of its own. It can be stopped and started again over its objects.

As a program it serves on the port of its argument and obeys the words that it reads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config

from cluster.config import Artifacts

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_EC2_METADATA_DISABLED": "true"}


class S3:
    """The running server, and a client of it for the test's own eyes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.s3"],
            cwd=Path(__file__).parent.parent,
            env=os.environ | CREDENTIALS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.endpoint = f"127.0.0.1:{int(self._answer())}"
        self.client: Any = botocore.session.get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=f"http://{self.endpoint}",
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            config=Config(s3={"addressing_style": "path"}),
        )

    def bucket(self) -> str:
        """A new, empty bucket."""
        name = f"test-{uuid.uuid4().hex}"
        self.client.create_bucket(Bucket=name)
        return name

    def options(self, **more: Any) -> Artifacts:
        quick = {"connect_timeout_s": 2, "request_timeout_s": 10, "max_attempts": 2}
        return Artifacts(**({"endpoint": self.endpoint, "scheme": "http"} | quick | more))

    def keys(self, bucket: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def empty(self, bucket: str) -> None:
        for key in self.keys(bucket):
            self.client.delete_object(Bucket=bucket, Key=key)
        for upload in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
            self.client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def uploads(self, bucket: str) -> list[str]:
        return [upload["Key"] for upload in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]

    def damage(self, bucket: str, key: str) -> None:
        """Changes one bit of an object behind everybody's back."""
        data = bytearray(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())
        data[-1] ^= 1
        self.client.put_object(Bucket=bucket, Key=key, Body=bytes(data))

    def stop(self) -> None:
        self._say("stop")

    def start(self) -> None:
        self._say("start")

    @contextmanager
    def away(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()

    def close(self) -> None:
        self.client.close()
        self._process.terminate()
        self._process.communicate()

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        assert self._answer() == word

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def _serve() -> None:
    from moto.server import ThreadedMotoServer

    def started(port: int) -> ThreadedMotoServer:
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        server.start()
        return server

    server = started(0)
    port = server.get_host_and_port()[1]
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        if line.strip() == "stop":
            server.stop()
        else:
            server = started(port)
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
