"""What holds for every test. None asserts how long it takes: the machine may be busy."""

from collections.abc import Iterator

import pytest
from hypothesis import settings
from sqlalchemy import make_url

import tests.ray_token  # noqa: F401 (before anything imports Ray)
from tests.postgres import Databases, private_server

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres-url",
        help="a PostgreSQL server on which the tests may create databases, instead of one of their own",
    )


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[Databases]:
    """A PostgreSQL server that the tests share: each makes databases of its own."""
    url = request.config.getoption("--postgres-url")
    if url:
        yield Databases(make_url(url))
        return
    with private_server() as server:
        yield server


SYSTEMS = {"system", "deep", "monolith"}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what needs no cluster, then what starts a bare Ray, last what shares whole systems: those stay up
    to the end and would slow the others down. Within each the order stays random.
    """

    def rank(item: pytest.Item) -> int:
        if SYSTEMS & set(getattr(item, "fixturenames", ())):
            return 2
        return int(item.get_closest_marker("integration") is not None)

    items.sort(key=rank)
