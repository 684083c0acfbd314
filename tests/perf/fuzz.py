"""The long form of `tests/integration/test_fuzz.py`: `python -m tests.perf.fuzz [--examples N]` starts a system, sends
it N machine-made requests per operation, twice, and fails with a report when one is answered wrongly.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from components.tiny import write_r2v
from tests.integration.fuzz import fuzz
from tests.integration.system import System


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=500)
    examples = parser.parse_args().examples
    with tempfile.TemporaryDirectory() as folder:
        write_r2v(Path(folder) / "tiny-r2v")
        with System(Path(folder) / "system") as system:
            done = system.finish(system.submit()["id"])["id"]
            fuzz(system.url, examples=examples, video_id=done)
            fuzz(system.url, examples=examples)
    print("Nothing was found.")  # noqa: T201 (what it is for)


if __name__ == "__main__":
    main()
