"""Where and with what something was measured."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parents[1]
PACKAGES = ("skyreels-serve", "httpx", "numpy", "pyarrow", "ray", "torch")


def manifest(**config: Any) -> dict[str, Any]:
    """Date, commit, machine and versions beside what the caller adds."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit(),
        "machine": f"{_processor()}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "python": platform.python_version(),
        **config,
    }


def versions() -> dict[str, str]:
    """Of the packages that matter, where they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def described(url: str, keys: Mapping[str, str]) -> dict[str, Any]:
    """What a server says of itself: profile, topology and slots, where it is one of ours; else nothing."""
    key = next(iter(keys.values()), None)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.get(f"{url.rstrip('/')}/v1/status", headers=headers, trust_env=False, timeout=10)
        told = response.raise_for_status().json()
        return {name: told[name] for name in ("profile", "topology", "slots")}
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return {}


def commit() -> str:
    """Of this tree; "unknown" outside of one."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
