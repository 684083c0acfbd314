import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments import durable

# Copies a pipe into a file of the store; the reader of the pipe is alive for as long as the writer keeps it open.
COPY = (
    "import sys\n"
    "from pathlib import Path\n"
    "from deployments import durable\n"
    "with open(sys.argv[1], 'rb', buffering=0) as source:\n"
    "    durable.write(Path(sys.argv[2]), iter(lambda: source.read(65536), b''))\n"
)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_write(tmp_path):
    nbytes, sha256 = durable.write(tmp_path / "a" / "b" / "c.bin", iter([b"one", b"", b"two"]))
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"onetwo"
    assert (nbytes, sha256) == (6, hashlib.sha256(b"onetwo").hexdigest())
    assert files(tmp_path) == ["a/b/c.bin"]


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "c.bin"
    durable.write(path, [b"old"])

    def chunks():
        yield b"new"
        assert path.read_bytes() == b"old"
        yield b"er"

    durable.write(path, chunks())
    assert path.read_bytes() == b"newer"


def test_synced_before_it_appears(tmp_path, monkeypatch):
    """The data is on disk before the name is, and the names of new folders and the file are synced after."""
    log: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def logged_fsync(descriptor: int) -> None:
        log.append("sync " + os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(str(tmp_path)))
        fsync(descriptor)

    def logged_replace(self: Path, target: Path) -> Path:
        log.append("replace")
        return replace(self, target)

    monkeypatch.setattr(durable.os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "replace", logged_replace)
    durable.write(tmp_path / "a" / "b" / "c.bin", [b"data"])
    assert log[:2] == ["sync ", "sync /a"]
    assert log[2].startswith("sync /a/b/.tmp-")
    assert log[3:] == ["replace", "sync /a/b"]


def test_a_failing_source_leaves_nothing(tmp_path):
    def chunks():
        yield b"half"
        raise KeyError("source")

    with pytest.raises(KeyError):
        durable.write(tmp_path / "c.bin", chunks())
    assert files(tmp_path) == []


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    durable.write(tmp_path / "c.bin", [b"old"])
    code = (
        "import errno, resource, sys\n"
        "from pathlib import Path\n"
        "from deployments import durable\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    durable.write(Path(sys.argv[1]), [bytes(60_000)] * 4)\n"
        "except OSError as error:\n"
        "    sys.exit(7 if error.errno == errno.EFBIG else 1)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "c.bin"], check=False, cwd=os.getcwd())
    assert run.returncode == 7
    assert files(tmp_path) == ["c.bin"]
    assert (tmp_path / "c.bin").read_bytes() == b"old"


def test_sweep_takes_dead_writers_files_and_leaves_live_ones(tmp_path):
    durable.write(tmp_path / "whole.bin", [b"whole"])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen([sys.executable, "-c", COPY, pipe, tmp_path / "jobs" / "out.bin"], cwd=os.getcwd())
    with pipe.open("wb", buffering=0) as feed:
        # More than a pipe holds: when this returns, the writer is past its lock and reading.
        feed.write(bytes(4 * 2**20))
        (temp,) = (tmp_path / "jobs").iterdir()
        assert temp.name.startswith(durable.TEMP_PREFIX)

        assert durable.sweep(tmp_path, min_age_s=0) == 0
        assert temp.exists()

        writer.kill()
        writer.wait()
        assert durable.sweep(tmp_path, min_age_s=3600) == 0
        assert durable.sweep(tmp_path, min_age_s=0) == 1
    assert files(tmp_path) == ["whole.bin"]


def test_a_swept_folder_does_not_stop_a_live_writer(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen([sys.executable, "-c", COPY, pipe, tmp_path / "out.bin"], cwd=os.getcwd())
    with pipe.open("wb", buffering=0) as feed:
        feed.write(bytes(4 * 2**20))
        durable.sweep(tmp_path, min_age_s=0)
    assert writer.wait(60) == 0
    assert (tmp_path / "out.bin").stat().st_size == 4 * 2**20
    assert files(tmp_path) == ["out.bin"]
