"""AIPerf, as it is, against a system of its own: its `video_generation` endpoint from submit to download. Not a test.

`python -m tests.perf.aiperf --aiperf PATH [--requests N] [--rate R]`; `make aiperf` installs it beside, in an
environment of its own. Its arrivals are an open loop; it looks at each job ten times a second. Prompts are drawn with
the tiny checkpoint's tokenizer, because AIPerf's own is fetched from the internet.
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import tempfile
from pathlib import Path

from loadtest.inputs import COLOURS, png
from loadtest.layouts import CHECKPOINTS, LAYOUTS, system

MODEL = "skyreels-v3-r2v"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiperf", required=True)
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--rate", type=float, default=0.5)
    parser.add_argument("--out", default="load/aiperf")
    options = parser.parse_args()
    image = {"b64_data": base64.b64encode(png(*COLOURS[0])).decode(), "filename": "a.png", "content_type": "image/png"}
    asked = {"images": image, "aspect_ratio": "16:9", "resolution": "64P", "seconds": 1, "seed": 7}
    with tempfile.TemporaryDirectory(prefix="skyreels-aiperf-") as held:
        folder = Path(held) / "system"
        with system(folder, LAYOUTS["laptop"], [MODEL], queued=None, running=None) as own:
            command = [
                *(options.aiperf, "profile", "--model", MODEL, "--url", own.url),
                *("--endpoint-type", "video_generation", "--download-video-content"),
                *("--tokenizer", str(folder.parent / CHECKPOINTS[MODEL] / "tokenizer")),
                *("--request-rate", str(options.rate), "--request-rate-mode", "poisson"),
                *("--request-count", str(options.requests), "--isl", "16", "--random-seed", "1"),
                *("--extra-inputs", json.dumps(asked), "--artifact-dir", options.out, "--ui", "none"),
            ]
            raise SystemExit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
