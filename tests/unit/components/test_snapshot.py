import pytest
import torch

from components.errors import SnapshotMismatch
from components.snapshot import Snapshot


def test_bytes_and_back():
    snapshot = Snapshot(
        {"latents": torch.randn(1, 2, 3), "generator": torch.arange(5, dtype=torch.uint8)},
        {"step": 3, "spec.guidance": 1.5, "counters": {"order": None, "timesteps": [999, None]}},
    )
    back = Snapshot.from_bytes(snapshot.to_bytes())
    assert back.meta == snapshot.meta
    assert back.step == 3
    assert set(back.tensors) == {"latents", "generator"}
    assert all(torch.equal(back.tensors[name], snapshot.tensors[name]) for name in back.tensors)


def test_same_bytes_every_time():
    snapshot = Snapshot({"b": torch.ones(2), "a": torch.zeros(3)}, {"step": 0, "x": 1})
    assert snapshot.to_bytes() == snapshot.to_bytes()


@pytest.mark.parametrize("cut", [0, 7, 20, -1])
def test_damaged_bytes_are_refused(cut):
    blob = Snapshot({"latents": torch.ones(4)}, {"step": 0}).to_bytes()
    with pytest.raises(SnapshotMismatch, match="damaged"):
        Snapshot.from_bytes(blob[:cut])


def test_another_safetensors_file_is_refused(root):
    with pytest.raises(SnapshotMismatch, match="of another kind"):
        Snapshot.from_bytes((root / "vae" / "diffusion_pytorch_model.safetensors").read_bytes())
