import hashlib
import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from components import vision
from components.checkpoints.verify import verify
from components.denoiser import AvatarTask
from components.dit.avatar import AvatarDiT
from components.errors import CheckpointMismatch
from components.text import TextEncoder
from components.tiny import write_avatar
from components.vae import LatentScale, Vae


def digests(root):
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


def test_the_same_bytes_every_time_and_others_for_another_seed(avatar_root, tmp_path):
    for name, seed in (("again", 0), ("other", 1)):
        write_avatar(tmp_path / name, seed=seed)
    first = digests(avatar_root)
    assert digests(tmp_path / "again") == first
    assert digests(tmp_path / "other") != first
    assert {name.split("/")[0] for name in first} >= {"chinese-wav2vec2-base", "google", "config.json"}


def test_every_loader_takes_it(avatar_root, cpu):
    assert AvatarTask.load(avatar_root, cpu).weights
    assert TextEncoder.load(avatar_root, cpu)
    assert Vae.load(avatar_root, cpu).scale == LatentScale.load(avatar_root)


def test_it_is_verified_whole_and_a_damaged_part_is_named(avatar_root, tmp_path):
    report = verify(avatar_root)
    assert (report.layout, report.whole) == ("talking avatar", True)
    assert len(report.parts) == 6
    broken = tmp_path / "broken"
    shutil.copytree(avatar_root, broken)
    (broken / vision.FILE).write_bytes(b"nothing")
    assert [part.name for part in verify(broken).parts if part.problem] == [vision.FILE]


def copy_of(root, folder):
    for file in root.glob("diffusion_pytorch_model*"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_bytes((root / "config.json").read_bytes())
    return folder


def test_a_key_too_many_too_few_or_of_another_shape_is_refused_by_its_stored_name(avatar_root, cpu, tmp_path):
    shard = next(copy_of(avatar_root, tmp_path).glob("*-00001-of-00002.safetensors"))
    state = load_file(shard)
    name = next(name for name in state if ".audio_cross_attn." in name)
    save_file({**state, name: state[name][:-1].clone()}, shard)
    with pytest.raises(CheckpointMismatch, match=f"{name!r} of shape".replace(".", r"\.")):
        AvatarDiT.load(tmp_path, cpu)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"model_type": "t2v"}, "no.* talking avatar"), ({"dim": None}, "config.json"), ({"num_layers": 3}, "missing")],
)
def test_another_configuration_is_refused(avatar_root, cpu, tmp_path, change, message):
    file = copy_of(avatar_root, tmp_path) / "config.json"
    config = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    with pytest.raises(CheckpointMismatch, match=message):
        AvatarDiT.load(tmp_path, cpu)
