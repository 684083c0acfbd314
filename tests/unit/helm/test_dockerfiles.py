"""The images: lint, no root, no weights, nothing that a build would fetch unpinned."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "helm/docker"
FILES = sorted(DOCKER.glob("*.Dockerfile"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """(keyword, rest) in order, continued lines joined, comments dropped."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(key, rest) for line in joined.splitlines() if line.strip() for key, _, rest in [line.partition(" ")]]


def last_stage(path: Path) -> list[tuple[str, str]]:
    found = instructions(path)
    start = max(index for index, (key, _) in enumerate(found) if key == "FROM")
    return found[start:]


def test_there_is_an_image_for_cpus_and_one_for_gpus() -> None:
    assert [path.name for path in FILES] == ["cpu.Dockerfile", "cuda.Dockerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_lint_finds_nothing(path: Path) -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run(
        [str(hadolint), "--config", str(DOCKER / ".hadolint.yaml"), str(path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nobody_is_root(path: Path) -> None:
    users = [rest for key, rest in last_stage(path) if key == "USER"]
    assert users == ["1000:1000"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_probes_find_wget(path: Path) -> None:
    assert any("install" in rest and " wget" in rest for key, rest in last_stage(path) if key == "RUN")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_only_code_enters(path: Path) -> None:
    """Neither weights nor state: what is copied is the packages and what builds them, all of it in the repository."""
    copied = [
        one for key, rest in instructions(path) if key == "COPY" and "--from" not in rest for one in rest.split()[:-1]
    ]
    allowed = {line[1:] for line in (path.parent / f"{path.name}.dockerignore").read_text().split() if line[0] == "!"}
    assert set(copied) == allowed
    assert all((ROOT / one).exists() for one in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(packages["packages"]) <= allowed
    assert not any(word in path.read_text() for word in ("snapshot_download", "hf download", "safetensors"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dependencies_are_pinned_and_extras_exist(path: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installs = [
        one for key, rest in instructions(path) if key == "RUN" for one in rest.split("&&") if "pip install" in one
    ]
    assert installs
    for one in installs:
        assert "-c constraints.txt" in one or "--no-deps" in one
        for wanted in re.findall(r"\.\[([\w,-]+)\]", one):
            assert set(wanted.split(",")) <= set(extras)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_bases_have_versions(path: Path) -> None:
    for key, rest in instructions(path):
        if key == "FROM":
            assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*( AS \w+)?", rest), rest
