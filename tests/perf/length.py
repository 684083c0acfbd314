"""How much memory a long video takes, beside a short one, on this machine. Not a test: nothing here is asserted.

`python -m tests.perf.length [--seconds 7 50 200]` makes talking avatars of these lengths, one after the other, in a
running laptop system, and prints for each process the most memory that it had resident meanwhile (`VmHWM`, set back
before each job), next to what all frames of the video are as 8-bit RGB.
"""

from __future__ import annotations

import tests.ray_token  # noqa: F401 (before anything imports Ray)

# isort: split

import argparse
import re
import tempfile
import time
from pathlib import Path

import psutil

from tests.integration.chains import FACE, NAMES, rows
from tests.integration.conftest import laptop
from tests.integration.system import System
from tests.unit.deployments.line import speech

KINDS = ("TextEncoder", "VaeRoom", "Denoiser")
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, nargs="+", default=[7, 7, 50, 200])
    parser.add_argument("--format", default="mp4", choices=("mp4", "mov", "webm"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        overrides = {**laptop(), "models": rows(folder), "denoise": {"loaded": len(NAMES)}}
        with System(folder / "system", overrides=overrides) as system:
            print(f"| s | frames | passes | all frames, MiB | {' | '.join(KINDS)} | ranks | took, s |")  # noqa: T201
            print("|" + "---|" * (len(KINDS) + 6))  # noqa: T201
            for seconds in options.seconds:
                print(measured(system, seconds, options.format), flush=True)  # noqa: T201


def measured(system: System, seconds: int, output_format: str) -> str:
    processes = [[system.replica(kind)] for kind in KINDS] + [system.ranks()]
    for process in (process for some in processes for process in some):
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    began = time.perf_counter()
    fields = {"model": "skyreels-v3-avatar", "prompt": "a ball speaks", "seed": "9", "output_format": output_format}
    voice = ("audio", ("voice.wav", speech(float(seconds)), "audio/wav"))
    response = system.client.post("/v1/videos", data=fields, files=[FACE, voice])
    assert response.status_code == 200, response.text
    job = system.finish(response.json()["id"], 3000)
    took_s = time.perf_counter() - began
    width, height = map(int, job["size"].split("x"))
    passes = sum(stage["stage"] == "denoise" for stage in job["stages"])
    pixels = job["frames"] * width * height * 3 / MIB
    peaks = " | ".join(f"{sum(map(peak_mib, some)):.0f}" for some in processes)
    return f"| {seconds} | {job['frames']} | {passes} | {pixels:.0f} | {peaks} | {took_s:.0f} |"


def peak_mib(process: psutil.Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
