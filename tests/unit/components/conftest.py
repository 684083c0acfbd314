from pathlib import Path

import pytest
import torch

from components.checkpoints import known_arguments, read_config
from components.denoiser import Denoiser, ReferenceTask
from components.device import Placement
from components.dit import ReferenceDiT
from components.text import TextEncoder
from components.text_hunyuan import HunyuanTextEncoder
from components.tiny import (
    write_avatar,
    write_df,
    write_extender,
    write_extension,
    write_i2v,
    write_r2v,
    write_t2v,
    write_v1_i2v,
    write_v1_t2v,
)
from components.vae import Vae
from components.vae_hunyuan import HunyuanVae
from components.values import Condition, TextContext
from tests.unit.components.world import World


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """A tiny reference-to-video checkpoint. Read only."""
    folder = tmp_path_factory.mktemp("checkpoint") / "r2v"
    write_r2v(folder)
    return folder


@pytest.fixture(scope="session")
def extension_root(tmp_path_factory) -> Path:
    """A tiny checkpoint of video extension in the original layout. Read only."""
    folder = tmp_path_factory.mktemp("checkpoint") / "extension"
    write_extension(folder)
    return folder


@pytest.fixture(scope="session")
def extender_root(tmp_path_factory) -> Path:
    """A tiny chat model. Read only."""
    folder = tmp_path_factory.mktemp("checkpoint") / "extender"
    write_extender(folder)
    return folder


@pytest.fixture(scope="session")
def cpu() -> Placement:
    return Placement.of("cpu")


@pytest.fixture(scope="session")
def vae(root, cpu) -> Vae:
    return Vae.load(root, cpu)


@pytest.fixture(scope="session")
def text(root, cpu) -> TextEncoder:
    return TextEncoder.load(root, cpu)


@pytest.fixture(scope="session")
def dit(root, cpu) -> ReferenceDiT:
    return ReferenceDiT.load(root, cpu)


@pytest.fixture(scope="session")
def denoiser(root, cpu) -> Denoiser:
    return Denoiser(ReferenceTask.load(root, cpu))


@pytest.fixture(scope="session")
def context(text) -> TextContext:
    return text.encode("a woman walks a dog at night", "smoke")


@pytest.fixture(scope="session")
def condition() -> Condition:
    """Two reference images' posteriors for a video of 32 × 48 pixels."""
    generator = torch.Generator().manual_seed(7)
    mean_KCHW = torch.randn((2, 16, 4, 6), generator=generator)
    return Condition(mean_KCHW, torch.randn((2, 16, 4, 6), generator=generator) - 1)


@pytest.fixture
def build():
    """A module on the meta device from a component's configuration."""

    def on_meta(kind, folder):
        with torch.device("meta"):
            return kind(**known_arguments(kind, read_config(folder / "config.json")))

    return on_meta


@pytest.fixture(scope="module")
def world_2():
    with World(2) as world:
        yield world


@pytest.fixture(scope="module")
def world_3():
    with World(3) as world:
        yield world


@pytest.fixture(scope="module")
def world_4():
    with World(4) as world:
        yield world


@pytest.fixture(scope="session")
def avatar_root(tmp_path_factory) -> Path:
    """A tiny talking avatar checkpoint. Read only."""
    folder = tmp_path_factory.mktemp("checkpoint") / "avatar"
    write_avatar(folder)
    return folder


@pytest.fixture(scope="session")
def avatar_vae(avatar_root, cpu) -> Vae:
    return Vae.load(avatar_root, cpu)


@pytest.fixture(scope="session")
def t2v_root(tmp_path_factory) -> Path:
    """A tiny text-to-video checkpoint of V2 in the original layout. Read only."""
    folder = tmp_path_factory.mktemp("checkpoint") / "t2v"
    write_t2v(folder)
    return folder


@pytest.fixture(scope="session")
def v1_t2v_root(tmp_path_factory) -> Path:
    """A tiny checkpoint of SkyReels V1. Read only."""
    folder = tmp_path_factory.mktemp("checkpoint") / "v1-t2v"
    write_v1_t2v(folder)
    return folder


@pytest.fixture(scope="session")
def i2v_root(tmp_path_factory) -> Path:
    """A tiny image-to-video checkpoint of V2 in the original layout. Read only."""
    folder = tmp_path_factory.mktemp("checkpoint") / "i2v"
    write_i2v(folder)
    return folder


@pytest.fixture(scope="session")
def v1_i2v_root(tmp_path_factory) -> Path:
    """The same of its model that takes a first frame. Read only."""
    folder = tmp_path_factory.mktemp("checkpoint") / "v1-i2v"
    write_v1_i2v(folder)
    return folder


@pytest.fixture(scope="session")
def df_root(tmp_path_factory) -> Path:
    """A tiny checkpoint of diffusion forcing in the original layout. Read only."""
    folder = tmp_path_factory.mktemp("checkpoint") / "df"
    write_df(folder)
    return folder


@pytest.fixture(scope="session")
def v1_text(v1_t2v_root, cpu) -> HunyuanTextEncoder:
    return HunyuanTextEncoder.load(v1_t2v_root, cpu)


@pytest.fixture(scope="session")
def v1_vae(v1_t2v_root, cpu) -> HunyuanVae:
    return HunyuanVae.load(v1_t2v_root, cpu)
