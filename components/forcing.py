"""Diffusion forcing: when each latent frame of a clip is denoised, and the sampler that does it.

Frames lie in blocks. Each block goes through all timesteps, and starts `lag` iterations behind the block before it; at
lag 0 all go together. Frames that are known from the start are ready: nothing happens to them.

Frames that go together share one solver: its steps treat every value alike, so that is the same as a solver each. The
original's solvers work on views of the latents, which it overwrites with each step's result; so their first correction
starts from where the first step ended and not from where it began. The released models are run so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from components.sampler import FlowUniPC, SamplerState


@dataclass(frozen=True, slots=True)
class Schedule:
    """By iteration: every frame's timestep and place in the grid, whether it is updated, and which frames are seen."""

    timesteps: tuple[tuple[int, ...], ...]
    places: tuple[tuple[int, ...], ...]  # 0 before a frame's first step, n in its n-th, steps + 1 behind the last
    updated: tuple[tuple[bool, ...], ...]
    windows: tuple[tuple[int, int], ...]  # frames from … to, exclusive; may reach beyond the last frame

    def __len__(self) -> int:
        """Iterations."""
        return len(self.timesteps)


def schedule(
    timesteps: Sequence[int],
    frames: int,
    *,
    lag: int = 0,
    block: int = 1,
    ready: int = 0,
    held: int = 0,
    window: int | None = None,
) -> Schedule:
    """When each frame is denoised.

    Args:
        timesteps: of the sampler's grid, falling.
        frames: latent frames of the clip, known ones included.
        lag: iterations between the starts of neighbouring blocks; 0 = all frames together.
        block: frames of a block; divides `frames`. Of `ready` and `window` whole blocks count.
        ready: frames at the beginning that are known.
        held: frames at the end that are known.
        window: frames that the model sees at once; None = all. A shorter window slides on as its first blocks are done.

    Raises:
        ValueError: a number is out of range, or the window is too short for the lag.
    """
    if block < 1 or lag < 0 or frames % block or not 0 <= ready + held < frames:
        raise ValueError(f"{frames} frames with {ready} + {held} known ones are no blocks of {block}")
    steps, blocks = len(timesteps), frames // block
    span = (window if window is not None else frames) // block
    if span < blocks and lag < (least := math.ceil(steps / span)):
        raise ValueError(f"a window of {span} blocks needs a lag of at least {least}, not {lag}")
    times = (999, *timesteps, 0)
    before = [steps + 1 if index < ready // block else 0 for index in range(blocks)]
    rows: list[list[int]] = []
    moved: list[list[bool]] = []
    while min(before) < steps:
        row: list[int] = []
        for index in range(blocks):
            leads = index == 0 or before[index - 1] >= steps
            row.append(before[index] + 1 if leads else row[index - 1] - lag)
        row = [min(max(place, 0), steps + 1) for place in row]
        rows.append(row)
        moved.append([new not in (old, steps + 1) for new, old in zip(row, before, strict=True)])
        before = row
    windows, end = [], span
    for mask in moved:
        if end < blocks and mask[end]:
            end += 1
        windows.append((max(end - span, 0) * block, end * block))

    def spread(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(value for value in values for _ in range(block))

    kept = frames - held
    return Schedule(
        timesteps=tuple((*spread([times[place] for place in row])[:kept], *(0,) * held) for row in rows),
        places=tuple(spread(row) for row in rows),
        updated=tuple((*spread(mask)[:kept], *(False,) * held) for mask in moved),
        windows=tuple(windows),
    )


class ForcingUniPC:
    """See `Sampler`. A step is one iteration of a schedule; what it is asked at is the iteration's number."""

    name = "forcing-unipc-2"

    def __init__(self, steps: int, flow_shift: float, plan: Schedule) -> None:
        """`steps` and `flow_shift` as of `FlowUniPC`; `plan` was made from its timesteps."""
        self._plan = plan
        self.timesteps: tuple[int, ...] = tuple(range(len(plan)))
        self._position = 0
        self._parties: dict[tuple[bool, ...], list[int]] = {}  # frames by when they are updated
        for frame in range(len(plan.updated[0])):
            when = tuple(
                row[frame] and first <= frame < stop
                for row, (first, stop) in zip(plan.updated, plan.windows, strict=True)
            )
            if any(when):
                self._parties.setdefault(when, []).append(frame)
        self._solvers = [FlowUniPC(steps, flow_shift) for _ in self._parties]

    @property
    def position(self) -> int:
        """Iterations done."""
        return self._position

    def step(self, velocity: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """From the velocity at `sample` to the next sample, both fp32 [B, C, T, H, W].

        Raises:
            ValueError: the schedule is used up.
        """
        if self._position >= len(self._plan):
            raise ValueError(f"all {len(self._plan)} iterations are done")
        following = sample.clone()
        for (when, frames), solver in zip(self._parties.items(), self._solvers, strict=True):
            if when[self._position]:
                stepped = solver.step(velocity[:, :, frames], sample[:, :, frames])
                if solver.position == 1:
                    solver.forget_start(stepped)
                following[:, :, frames] = stepped
        self._position += 1
        return following

    def state(self) -> SamplerState:
        """That of every solver."""
        states = [solver.state() for solver in self._solvers]
        tensors = {f"{i}.{name}": tensor for i, state in enumerate(states) for name, tensor in state.tensors.items()}
        counters = {"position": self._position, "solvers": [dict(state.counters) for state in states]}
        return SamplerState(tensors, counters)

    def restore(self, state: SamplerState, device: torch.device) -> None:
        """Continues where `state` was taken; the rest is bit-identical on the same kind of device."""
        own: list[Mapping[str, Any]] = state.counters["solvers"]
        for index, solver in enumerate(self._solvers):
            prefix = f"{index}."
            tensors = {
                name.removeprefix(prefix): tensor for name, tensor in state.tensors.items() if name.startswith(prefix)
            }
            solver.restore(SamplerState(tensors, own[index]), device)
        self._position = int(state.counters["position"])
