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
from components.media.image import read
from components.media.segments import SegmentEncoder
from components.vae import Vae
from components.values import Condition, Latents
from deployments.artifacts import ArtifactStore, job_key
from deployments.group.commands import Done, Failed
from deployments.transport import DurableTransport
from tests.unit.cluster.makers import EPOCH, request
from tests.unit.components.world import World
from tests.unit.deployments.group import vae_members
from tests.unit.deployments.group.jobs import config

DATA = Path(__file__).parents[3] / "data"
FRAMES = 25


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(2) as world:
        yield world


@pytest.fixture(scope="module")
def place(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return config(root, tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def vae(root: Path) -> Vae:
    return Vae.load(root, Placement.of("cpu"))


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
