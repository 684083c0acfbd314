"""Latents → segments → file, chunk by chunk. Frames leave the VAE a few at a time and go straight into the encoder."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.chains import decoded_latents
from cluster.records import Request
from cluster.registry import MODELS
from components import vae_hunyuan, vae_original
from components.colour import ColourMatch, to_levels
from components.vae import Vae, levels
from components.vae_hunyuan import HunyuanVae
from components.values import Latents, Pixels
from deployments.cut import Cut, Made, cut_of
from deployments.final import final_file
from deployments.inputs import input_bytes
from deployments.parts import OUT, collect, store_parts
from deployments.portrait import portrait_of
from deployments.room import Produced, Room
from deployments.segments import SegmentRows, SegmentWriter
from deployments.weights import Weights, kinds_of

TRUNCATED = frozenset({"extend", "shot", "t2v", "i2v", "df"})  # kinds of graph whose pixels the original rounds down


class DecodeStage:
    """Every chunk's frames become stored segments of one timeline; the last chunk's call makes the file of them all."""

    def __init__(self, weights: Weights) -> None:
        self._vaes: dict[str, Vae | HunyuanVae] = {
            **weights.load(Vae.load, kinds_of("wan"), vae_original.FILE),
            **weights.load(HunyuanVae.load, kinds_of("hunyuan"), vae_hunyuan.WEIGHTS),
        }
        self._media = weights.config.media

    async def run(self, room: Room) -> Produced:
        request, chunk = room.request, room.work.call.ref.chunk
        latents = await room.open("latents", Latents)
        portrait = None
        if MODELS[request.model].graph == "avatar":
            portrait = await room.compute(portrait_of, request, await input_bytes(room, request.images[0]), self._media)
        frames = made(self._vaes[request.model], request, latents, portrait)
        return await stored(room, frames, cut_of(room.work), decoded_latents(request, chunk))


def made(vae: Vae | HunyuanVae, request: Request, latents: Latents, portrait: Pixels | None) -> Iterator[Made]:
    """A chunk's frames as its model gives them, one latent frame's at a time; a portrait's keep its colours."""
    truncate = MODELS[request.model].graph in TRUNCATED
    if MODELS[request.model].graph == "df":  # which hands frames on as they were made
        for frames_BCFYX in vae.decode_float(latents):
            yield Made(levels(frames_BCFYX, truncate=truncate), frames_BCFYX[0].cpu() * 2 - 1)
        return
    if portrait is None:
        for levels_FYXC in vae.decode(latents, truncate=truncate):
            yield Made(levels_FYXC)
        return
    colours = ColourMatch(portrait.pixels_CFYX[:, 0])
    for frames_BCFYX in vae.decode_float(latents):
        pixels_CFYX = colours.match(frames_BCFYX[0] * 2 - 1).cpu()
        yield Made(to_levels(pixels_CFYX).permute(1, 2, 3, 0).contiguous().numpy(), pixels_CFYX)


async def stored(room: Room, frames: Iterator[Made], cut: Cut, steps: int) -> Produced:
    """Encodes and stores a chunk while it is decoded.

    Args:
        room: of the call.
        frames: of all the chunk.
        cut: which of them count.
        steps: how often `frames` gives some.
    """
    if cut.piece is None:
        for step in range(steps):
            room.lease.advance(step, steps)
            cut.pass_on(await room.compute(next, frames))
        return Produced(cut.handed())
    rows = SegmentRows(room)
    async with SegmentWriter(room.work, cut.piece, room.artifacts, rows, room.scratch) as writer:
        step = 0
        while (some := await room.compute(next, frames, None)) is not None:
            room.lease.advance(step, steps)
            kept = cut.pass_on(some)
            if len(kept):
                with room.laps.lap("segments"):
                    await writer.write(kept)
            step += 1
        with room.laps.lap("segments"):
            await writer.finish()
    room.lease.advance(steps, steps)
    with room.laps.lap("file"):
        parts = await collect(room, rows.files, cut.piece.frames)
        if room.last:
            return Produced(artifact=await final_file(room, parts))
        return Produced(cut.handed(), {OUT: await store_parts(room, parts)})
