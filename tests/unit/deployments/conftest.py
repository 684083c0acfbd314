"""Fixtures that tests of several folders use."""

from collections.abc import Iterator

import pytest

from deployments.artifacts import ArtifactStore
from tests.s3 import CREDENTIALS, S3
from tests.unit.deployments.api.conftest import edge

__all__ = ["edge"]


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 whose credentials are in the environment."""
    server = S3()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield server
    server.close()


@pytest.fixture(scope="session")
def s3_store(s3: S3) -> tuple[str, ArtifactStore]:
    """The bucket and the store that tests share; making a client costs more than using it."""
    bucket = s3.bucket()
    return bucket, ArtifactStore(f"s3://{bucket}/some/prefix", s3.options(redirect=False))


@pytest.fixture
def on_s3(s3: S3, s3_store: tuple[str, ArtifactStore]) -> Iterator[ArtifactStore]:
    """An artifact store under a prefix of a bucket, empty."""
    bucket, store = s3_store
    yield store
    s3.empty(bucket)
