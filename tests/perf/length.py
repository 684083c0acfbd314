"""How much memory a long video takes, beside a short one, on this machine. Not a test: nothing here is asserted.

`python -m tests.perf.length [--seconds 7 50 200]` makes talking avatars of these lengths, each in a process of its own
that hosts every stage, and prints for each kind of stage how far the process's resident memory rose at most while one
of its calls ran (`VmHWM`), next to what all frames of the video are as 8-bit RGB. The last decode writes the file. A
short avatar comes first, which warms everything up. No hand-off value is kept in the process, as that is a cache with a
bound of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from deployments import stages
from tests.unit.deployments.line import Line, checkpoints, open_line, portrait, speech

MODEL = "skyreels-v3-avatar"
STAGES = ("text", "audio", "vision", "condition", "denoise", "decode")
WARM_S = 4.0
# The allocator gives freed blocks back at once, so the peak is what was in use.
SETTINGS = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[7, 50, 200])
    parser.add_argument("--format", default="mp4", choices=("mp4", "mov", "webm"))
    parser.add_argument("--here", action="store_true", help="in this process, without a heading")
    options = parser.parse_args()
    if options.here:
        with tempfile.TemporaryDirectory() as folder:
            print(asyncio.run(measured(Path(folder), options.seconds[0], options.format)))  # noqa: T201
        return
    print(f"| video, s | frames | passes | all frames, MiB | {' | '.join(STAGES)} | took, s |")  # noqa: T201
    print("|" + "---|" * (5 + len(STAGES)), flush=True)  # noqa: T201
    for seconds in options.seconds:
        command = [sys.executable, "-m", "tests.perf.length", "--here", "--format", options.format, "--seconds"]
        subprocess.run([*command, str(seconds)], env={**os.environ, **SETTINGS}, check=True)


async def measured(folder: Path, seconds: float, output_format: str) -> str:
    with patch.object(stages, "CACHE_NBYTES", 0):
        async with open_line(folder, checkpoints(folder, (MODEL,))) as line:
            await line.finish((await submit(line, WARM_S, output_format))["id"])
            job = await submit(line, seconds, output_format)
            line.done.clear()
            before_mib, began = resident_mib("VmRSS"), time.perf_counter()
            risen = dict.fromkeys(STAGES, 0.0)
            while ready := (await line.play.store.state(worker_ttl_s=600)).ready:
                for item in ready:
                    Path("/proc/self/clear_refs").write_text("5")
                    await line.run(item.ref)
                    risen[item.ref.stage] = max(risen[item.ref.stage], resident_mib("VmHWM") - before_mib)
            took_s = time.perf_counter() - began
    width, height = map(int, job["size"].split("x"))
    passes = sum(ref.stage == "denoise" for ref in line.done)
    pixels_mib = job["frames"] * width * height * 3 / 2**20
    cells = " | ".join(f"{risen[stage]:.0f}" for stage in STAGES)
    return f"| {seconds:g} | {job['frames']} | {passes} | {pixels_mib:.0f} | {cells} | {took_s:.0f} |"


async def submit(line: Line, seconds: float, output_format: str) -> dict[str, Any]:
    face, voice = (base64.b64encode(data).decode() for data in (portrait(), speech(seconds)))
    return await line.submit(
        model=MODEL,
        prompt="a ball speaks",
        images=[f"data:image/png;base64,{face}"],
        audio=f"data:audio/wav;base64,{voice}",
        output_format=output_format,
    )


def resident_mib(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
