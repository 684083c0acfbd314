"""Finds golden cases: numbers recorded from the original models, `<case>/<NN>.safetensors` beside `<NN>.json`.

Keys of the tensors: `in.*` inputs, `w.*` weights under the original names, `out.*` expected outputs. A subset is
committed here; the folder named by SKYREELS_PARITY_DIR is searched too, and every case found is run.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = Path(__file__).resolve().parent / "data"
PARITY = Path(os.environ.get("SKYREELS_PARITY_DIR") or ROOT.parent / "shared" / "parity").absolute()


@dataclass(frozen=True)
class Case:
    path: Path  # of the JSON

    @property
    def config(self):
        return json.loads(self.path.read_text())

    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(self.path.with_suffix(".safetensors"))


def parametrize(name: str, **fields):
    """Runs a test on every case of a kind, committed or not; a folder without the kind shows as one skip.

    `fields` keeps the cases whose configuration has these values.
    """
    params = []
    for label, folder in (("committed", COMMITTED), ("parity", PARITY)):
        found = [path for path in sorted((folder / name).glob("*.json")) if fields.items() <= Case(path).config.items()]
        params += [pytest.param(Case(path), id=f"{label}-{path.stem}") for path in found]
        if not found:
            reason = f"no golden cases in {folder / name}; set SKYREELS_PARITY_DIR to a folder that has some"
            params.append(pytest.param(None, id=f"{label}-none", marks=pytest.mark.skip(reason=reason)))
    return pytest.mark.parametrize("case", params)


def weights(tensors: dict[str, torch.Tensor], prefix: str = "w.") -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def max_diff(got: torch.Tensor, expected: torch.Tensor) -> float:
    assert got.shape == expected.shape
    return float((got.double() - expected.double()).abs().max())
