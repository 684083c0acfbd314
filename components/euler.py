"""Euler steps on a shifted flow grid, with no memory: the sampler of the talking avatar and of SkyReels V1."""

from __future__ import annotations

import numpy as np
import torch

from components.sampler import TRAIN_TIMESTEPS, SamplerState


class FlowEuler:
    """See `Sampler`."""

    def __init__(self, steps: int, flow_shift: float, *, to_zero: bool = False) -> None:
        """The grid: t falls evenly from 1000 to 1, then σ = t / 1000 is shifted to s·σ / (1 + (s − 1)·σ); it ends at 0.

        Args:
            steps: number of steps, ≥ 1.
            flow_shift: s; larger spends more steps at high noise.
            to_zero: t falls evenly from 1000 to 0 instead, the end of the last step; so it does for SkyReels V1.
        """
        self.name = "flow-euler-0" if to_zero else "flow-euler"
        even = np.linspace(TRAIN_TIMESTEPS, 0, steps + 1)[:-1] if to_zero else np.linspace(TRAIN_TIMESTEPS, 1, steps)
        sigmas = even / TRAIN_TIMESTEPS
        shifted = flow_shift * sigmas / (1 + (flow_shift - 1) * sigmas) * TRAIN_TIMESTEPS
        self.timesteps: tuple[float, ...] = tuple(float(np.float32(timestep)) for timestep in shifted)
        self._position = 0

    @property
    def position(self) -> int:
        """Steps done."""
        return self._position

    def step(self, velocity: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """From the velocity at `sample` to the next sample, both fp32 of one shape.

        Raises:
            ValueError: the grid is used up.
        """
        if self._position >= len(self.timesteps):
            raise ValueError(f"all {len(self.timesteps)} steps are done")
        here, following = (*self.timesteps, 0.0)[self._position : self._position + 2]
        self._position += 1
        return sample - velocity * ((here - following) / TRAIN_TIMESTEPS)

    def state(self) -> SamplerState:
        """The position."""
        return SamplerState({}, {"position": self._position})

    def restore(self, state: SamplerState, device: torch.device) -> None:
        """Continues where `state` was taken; `device` does not matter."""
        self._position = int(state.counters["position"])
