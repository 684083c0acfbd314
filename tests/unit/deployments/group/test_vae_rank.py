"""Two members of a VAE group in a real gloo world, without Ray, against one process."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from cluster.config import Config
from cluster.records import Handle, Media, Request, StageCall, StageRef, StageWork
from components.device import Placement
from components.image import letterbox
from components.known import encode_known
from components.media.image import read
from components.media.segments import SegmentEncoder
from components.tiny import write_avatar
from components.vae import Vae
from components.values import AudioFeatures, AudioWindow, Condition, KnownFrames, Latents, Pixels, Regions, Value
from deployments.artifacts import ArtifactStore, job_key
from deployments.decoding import made
from deployments.group.commands import Done, Failed
from deployments.portrait import portrait_of
from deployments.transport import DurableTransport
from tests.unit.cluster.makers import EPOCH, request
from tests.unit.components.world import World
from tests.unit.deployments.group import vae_members
from tests.unit.deployments.group.jobs import config

DATA = Path(__file__).parents[3] / "data"
AVATAR = "skyreels-v3-avatar"
FRAMES = 25


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(2) as world:
        yield world


@pytest.fixture(scope="module")
def place(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("vae")
    write_avatar(folder / "avatar")
    models = [config(root, folder).models[0], {"name": AVATAR, "checkpoint": str(folder / "avatar"), "tiny": True}]
    stages = ["text", "audio", "vision", "condition", "denoise", "decode"]
    pools = [{"name": "All", "stages": stages}]
    return Config.model_validate(
        {"profile": "test", "topology": "monolith", "state_dir": str(folder), "models": models, "pools": pools}
    )


@pytest.fixture(scope="module")
def vae(root: Path) -> Vae:
    return Vae.load(root, Placement.of("cpu"))


@pytest.fixture(scope="module")
def avatar_vae(place: Config) -> Vae:
    return Vae.load(Path(place.models[1].checkpoint), Placement.of("cpu"))


def stage_work(stage: str, job: str, asked: Request, **inputs: Handle) -> StageWork:
    call = StageCall(StageRef(job, stage), 1)
    return StageWork(call, 1, "t", asked, inputs, snapshot=None, created_at=EPOCH, deadline_at=None)


async def decode_work(place: Config, job: str) -> tuple[StageWork, Latents]:
    asked = request(frames=FRAMES, height=64, width=112)
    latents = Latents(torch.randn((1, 16, 7, 8, 14), generator=torch.Generator().manual_seed(3)))
    transport = DurableTransport(ArtifactStore(place.artifacts_root), cache_nbytes=0)
    handle = await transport.put(job_key(job, "work", "latents.safetensors"), latents)
    return stage_work("decode", job, asked, latents=handle), latents


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)


async def test_a_decode_writes_the_segments_of_one_process(world: World, place: Config, vae: Vae) -> None:
    work, latents = await decode_work(place, "decode")
    first, second = world.run(vae_members.work, place, work, 7)
    assert all(isinstance(outcome, Done) for outcome in (*first, *second)), (first, second)
    assert [outcome.step for outcome in first] == [outcome.step for outcome in second]
    segments = [written.segment for outcome in first for written in outcome.segments]
    assert not any(outcome.segments for outcome in second)
    assert [(segment.index, segment.first_frame, segment.frames) for segment in segments] == [(0, 0, 24), (1, 24, 1)]
    assert first[-2].segments  # the last one comes in the end
    store = ArtifactStore(place.artifacts_root)
    stored = [await store.get_bytes(uri) for uri in (segments[0].init_uri, *(segment.uri for segment in segments))]
    encoder = SegmentEncoder(64, 112, work.request.fps)
    pieces = [encoder.encode(frames) for frames in vae.decode(latents)]
    alone = encoder.init + b"".join(one.data for piece in (*pieces, encoder.finish()) for one in piece)
    difference = np.abs(pixels(b"".join(stored)) - pixels(alone))
    # A value near a border is rounded to another level now and then; the encoder spreads such a difference a little.
    assert difference.mean() < 0.05
    assert difference.max() <= 8


async def test_references_are_encoded_as_in_one_process(world: World, place: Config, vae: Vae) -> None:
    store = ArtifactStore(place.artifacts_root)
    files = [(DATA / name).read_bytes() for name in ("ball.png", "triangle.png")]
    images = []
    for index, data in enumerate(files):
        stored = await store.put_bytes(job_key("encode", "inputs", f"{index}.png"), data)
        images.append(Media(stored.uri, "image/png", stored.nbytes, stored.sha256, 1, 1))
    asked = request(height=64, width=112, images=tuple(images))
    first, second = world.run(vae_members.work, place, stage_work("condition", "encode", asked), 2)
    assert all(isinstance(outcome, Done) for outcome in (*first, *second)), (first, second)
    handle = first[-2].handles["condition"]
    assert not second[-2].handles
    condition = await DurableTransport(store, cache_nbytes=0).get(handle)
    assert isinstance(condition, Condition)
    boxes = torch.stack([letterbox(read(data, max_pixels=10**6), 64, 112) for data in files])
    expected = vae.encode_references(boxes)
    assert float((condition.mean_KCHW - expected.mean_KCHW).abs().max()) <= 1.5e-5
    assert float((condition.logvar_KCHW - expected.logvar_KCHW).abs().max()) <= 1.5e-5


async def avatar_work(place: Config, stage: str, chunk: int, **values: Value) -> tuple[StageWork, Pixels]:
    """A call of a two-window avatar, its inputs stored; and the portrait at its size."""
    store = ArtifactStore(place.artifacts_root)
    transport = DurableTransport(store, cache_nbytes=0)
    data = (DATA / "ball.png").read_bytes()
    stored = await store.put_bytes(job_key("avatar", "inputs", "face.png"), data)
    images = (Media(stored.uri, "image/png", stored.nbytes, stored.sha256, 1, 1),)
    asked = request(model=AVATAR, frames=100, fps=25, height=64, width=112, images=images)
    handles = {
        port: await transport.put(job_key("avatar", "work", f"{stage}{chunk}{port}.safetensors"), value)
        for port, value in values.items()
    }
    call = StageCall(StageRef("avatar", stage, chunk), 1)
    work = StageWork(call, 1, "t", asked, handles, snapshot=None, created_at=EPOCH, deadline_at=None)
    return work, portrait_of(asked, data, place.media)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).clamp(-1, 1)


@pytest.mark.parametrize("chunk", [0, 2])
async def test_a_window_s_condition_is_that_of_one_process(
    world: World, place: Config, avatar_vae: Vae, chunk: int
) -> None:
    """The key-frame pass begins with the portrait, a later window with what was handed on and its key frame."""
    values: dict[str, Value] = {"audio": AudioFeatures(noise(1, 100, 12, 768))}
    if chunk:
        values |= {"tail": Pixels(noise(3, 5, 64, 112)), "key": Pixels(noise(3, 1, 64, 112))}
    work, portrait = await avatar_work(place, "condition", chunk, **values)
    first, second = world.run(vae_members.work, place, work, 1)
    assert all(isinstance(outcome, Done) for outcome in (*first, *second)), (first, second)
    transport = DurableTransport(ArtifactStore(place.artifacts_root), cache_nbytes=0)
    found = {port: await transport.get(handle) for port, handle in first[-2].handles.items()}
    assert not second[-2].handles
    assert {port: type(value) for port, value in found.items()} == {"condition": KnownFrames, "audio": AudioWindow} | (
        {} if chunk else {"regions": Regions}
    )
    begins = values.get("tail", portrait)
    assert isinstance(begins, Pixels)
    key = values.get("key")
    assert key is None or isinstance(key, Pixels)
    expected = encode_known(avatar_vae, begins, key, 81).tensors()
    for name, tensor in found["condition"].tensors().items():
        assert torch.allclose(tensor, expected[name], rtol=0, atol=1.5e-5)


async def test_a_window_is_decoded_in_the_portrait_s_colours_and_handed_on(
    world: World, place: Config, avatar_vae: Vae
) -> None:
    latents = Latents(noise(1, 16, 21, 8, 14))
    work, portrait = await avatar_work(place, "decode", 1, latents=latents)
    first, second = world.run(vae_members.work, place, work, 21)
    assert all(isinstance(outcome, Done) for outcome in (*first, *second)), (first, second)
    segments = [written.segment for outcome in first for written in outcome.segments]
    assert sum(segment.frames for segment in segments) == 69
    handle = first[-2].handles["tail"]
    tail = await DurableTransport(ArtifactStore(place.artifacts_root), cache_nbytes=0).get(handle)
    assert isinstance(tail, Pixels)
    pixels_CFYX = torch.cat([one.pixels_CFYX for one in made(avatar_vae, work.request, latents, portrait)], dim=1)  # type: ignore[misc]
    assert float((tail.pixels_CFYX - pixels_CFYX[:, 64:69]).abs().max()) <= 1e-4


async def test_rank_0_that_cannot_write_fails_the_job_and_leaves_nobody_waiting(world: World, place: Config) -> None:
    work, _ = await decode_work(place, "full")
    root = Path(place.artifacts_root) / "jobs" / "full"
    first, second = world.run(vae_members.without_disk, place, work, root)
    failed = [outcome for outcome in first if isinstance(outcome, Failed)]
    assert failed
    assert not any(outcome.broken for outcome in failed)
    assert all(isinstance(outcome, Done) for outcome in second)
    again, _ = await decode_work(place, "after")
    outcomes, _ = world.run(vae_members.work, place, again, 7)
    assert all(isinstance(outcome, Done) for outcome in outcomes)
