"""The folders are the layers: components compute, cluster decides, deployments joins, loadtest stays outside."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("cluster", "components", "deployments", "loadtest")
MAX_LINES = 500

MODEL_LIBRARIES = {"torch", "diffusers", "transformers"}
# Top-level modules that a folder never imports, not even lazily or for types only.
FORBIDDEN = {
    "cluster": {"components", "deployments", "loadtest", "ray", "fastapi", "starlette", *MODEL_LIBRARIES},
    "components": {"cluster", "deployments", "loadtest", "ray", "fastapi", "starlette", "sqlalchemy"},
    "components/media": MODEL_LIBRARIES,
    "deployments": {"loadtest"},
    "loadtest": {"components", "deployments", "ray", "fastapi", "starlette", *MODEL_LIBRARIES},
}
LOADTEST_MAY = {"cluster.records", "cluster.plans", "cluster.registry"}
LOADTEST_LIBRARIES = {
    *("av", "httpx", "numpy", "prometheus_client", "psutil", "pyarrow", "pydantic"),
    *("rich", "standardwebhooks", "typer", "yaml"),
}


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every imported module with its line, from all over the file. `from a import b` counts as a and as a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            assert node.module is not None
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_folder_reaches_across_its_layer(folder: str) -> None:
    assert files(folder)
    broken = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in files(folder)
        for line, module in imports(path)
        if module.partition(".")[0] in FORBIDDEN[folder]
    ]
    assert not broken


def test_loadtest_shares_nouns_only() -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in files("loadtest")
        for line, module in imports(path)
        if module.startswith("cluster.") and ".".join(module.split(".")[:2]) not in LOADTEST_MAY
    ]
    assert not broken


def test_loadtest_needs_little() -> None:
    """It may run on a machine that serves nothing."""
    known = LOADTEST_LIBRARIES | sys.stdlib_module_names | {"cluster", "loadtest"}
    broken = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in files("loadtest")
        if "examples" not in path.parts  # scripts of other tools
        for line, module in imports(path)
        if module.partition(".")[0] not in known
    ]
    assert not broken


def test_kubernetes_is_spoken_in_one_folder() -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in PACKAGES
        for path in files(folder)
        for line, module in imports(path)
        if module.partition(".")[0] == "kubernetes" and not path.is_relative_to(ROOT / "cluster/kube")
    ]
    assert not broken


def test_the_rule_sees_every_kind_of_import(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("import a.b as c\ndef f():\n    from d import e\nif TYPE_CHECKING:\n    import g\n")
    assert {module for _, module in imports(path)} == {"a.b", "d", "d.e", "g"}


LOAD = """
import importlib, pkgutil, sys
for package in sys.argv[1].split(","):
    module = importlib.import_module(package)
    for found in pkgutil.walk_packages(module.__path__, package + "."):
        if not found.name.startswith("cluster.kube"):
            importlib.import_module(found.name)
loaded = {name.partition(".")[0] for name in sys.modules}
print(",".join(sorted(loaded & set(sys.argv[2].split(",")))))
"""


@pytest.mark.parametrize(
    ("package", "heavy"),
    [
        ("cluster", "torch,ray,fastapi,diffusers,transformers,components,deployments,kubernetes"),
        ("components.media", "torch,ray,cluster,diffusers,transformers"),
        ("deployments.api", "torch,diffusers,transformers"),
        ("loadtest", "torch,ray,components,deployments"),
    ],
)
def test_importing_everything_loads_nothing_heavy(package: str, heavy: str) -> None:
    """In a process of its own, because this one may have loaded anything."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, package, heavy], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_imported_is_the_one_in_this_tree(package: str) -> None:
    """The flat names are generic: an installed package of the same name would win silently."""
    location = importlib.import_module(package).__file__
    assert location is not None
    assert Path(location).is_relative_to(ROOT)
    assert (ROOT / package / "py.typed").exists()


def test_files_stay_readable() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in (*PACKAGES, "tests")
        for path in files(folder)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long
