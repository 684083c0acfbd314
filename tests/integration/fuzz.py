"""Requests that a machine thought of, against a running server.

Nothing may answer 5xx, with a status or media type that the description does not name, or with a body that does not
conform to it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
)
SEED = 1
PROGRAM = "from schemathesis.cli import schemathesis; schemathesis()"


def fuzz(url: str, *, examples: int, video_id: str | None = None) -> None:
    """With ids that the machine makes up, or with that of a finished video, which is left there. AssertionError with
    the report when anything is wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings, arguments = Path(folder) / "schemathesis.toml", []
        settings.write_text("")
        if video_id is not None:
            known = {"path.video_id": video_id, "path.chunk": 0, "path.name": "0.m4s"}
            lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in known.items()]
            settings.write_text("[parameters]\n" + "\n".join(lines) + "\n")
            arguments = ["--include-path-regex", r"\{video_id\}", "--exclude-method", "DELETE"]
        command = [
            sys.executable, "-c", PROGRAM, "--config-file", str(settings), "run", f"{url}/openapi.json",
            "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--max-examples", str(examples),
            "--seed", str(SEED), "--generation-database", "none", "--continue-on-failure",
            "--no-color", "--warnings", "off", *arguments,
        ]  # fmt: skip
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stdout[-20_000:]}\n{ran.stderr[-5_000:]}"
