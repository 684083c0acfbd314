"""The README's commands, run as printed against a real system."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import av
import pytest

from tests.integration.system import System, until

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks() -> list[str]:
    return re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


def sh(command: str, folder: Path) -> str:
    done = subprocess.run(["bash", "-ec", command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(system: System) -> None:
    (command,) = (block for block in blocks() if "/v1/videos" in block)
    answer = json.loads(sh(command.replace("http://127.0.0.1:8000", system.url), ROOT))
    job = system.finish(answer["id"])
    assert job["size"] == "112x64"
    (address,) = re.findall(r"`http://127\.0\.0\.1:8000(\S+/preview)`", README)
    with av.open(system.url + address.format(id=job["id"])) as player:
        assert sum(1 for _ in player.decode(video=0)) == job["frames"]


def test_curl_in_the_other_dialects(system: System) -> None:
    (commands,) = (block for block in blocks() if "/runware/v1" in block)
    text = sh(commands.replace("http://127.0.0.1:8000", system.url), ROOT)
    wavespeed, end = json.JSONDecoder().raw_decode(text)
    runware = json.loads(text[end:])
    assert system.finish(wavespeed["data"]["id"])["prompt"] == "A red ball rolls"
    (task,) = runware["data"]

    def done() -> bool:
        asked = [{"taskType": "getResponse", "taskUUID": task["taskUUID"]}]
        (entry,) = system.client.post("/runware/v1", json=asked).json()["data"]
        return bool(entry["status"] == "success")

    until("the task is done", done)


def test_shell(system: System, tmp_path: Path) -> None:
    (commands,) = (block for block in blocks() if "skyreels generate" in block)
    program = f"{sys.executable} -c 'from deployments.cli.main import main; main()'"
    script = commands.replace(".venv/bin/skyreels", program).replace("out.mp4", str(tmp_path / "out.mp4"))
    assert "skyreels-v3-r2v" in sh(f"export SKYREELS_URL={system.url}\n{script}", ROOT)
    assert (tmp_path / "out.mp4").read_bytes()[4:8] == b"ftyp"


def test_openai_package(system: System, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    program = program.replace("http://127.0.0.1:8000", system.url).replace('"ball.web', f'"{tmp_path}/ball.web')
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    with av.open(str(tmp_path / "ball.webm")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 25
    assert (tmp_path / "ball.webp").read_bytes()[8:12] == b"WEBP"
