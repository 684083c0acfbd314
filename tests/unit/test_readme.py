"""The README is true: its commands and files exist, its YAML is a configuration. The integration tests run it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.config import parse
from cluster.registry import MODELS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_make_targets_exist() -> None:
    for target in re.findall(r"^make ([a-z-]+)", README, re.MULTILINE):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_yaml_is_a_configuration() -> None:
    whole, *more = blocks("yaml")
    assert parse(whole, "README").pools[1].ranks == 4
    first = yaml.safe_load(whole)
    for part in more:
        added = yaml.safe_load(part)
        pools = [*first["pools"], *added.get("pools", [])]
        assert parse(yaml.safe_dump(first | added | {"pools": pools}), "README") != parse(whole, "README")


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_named_files_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    names = re.findall(r"`((?:cluster|components|deployments|tests)/[\w./-]+)`", text)
    names += re.findall(r"\]\(([\w.]+\.md)\)", text) + re.findall(r"@(tests/[\w./]+)", text)
    missing = [name for name in names if not (ROOT / name).exists()]
    assert not missing


def test_every_model_has_a_row() -> None:
    for name in MODELS:
        assert f"| `{name}` |" in README
