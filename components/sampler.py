"""Samplers, with a state that can be carried away, and the one of most families: UniPC on the flow's sigma grid.

UniPC of order 2, predictor-corrector in B(h) variant 2, predicting x0 (Zhao et al. 2023, arXiv:2302.04867), driven by
the library's implementation. Only the grid is given: later versions of the library start it at another sigma, and the
released models were distilled on the earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler

TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True, slots=True)
class SamplerState:
    """Everything the next step depends on beside the sample: solver history as tensors, counters as JSON types."""

    tensors: Mapping[str, torch.Tensor]
    counters: Mapping[str, Any]


class Sampler(Protocol):
    """One run's sampler; it knows its position. `step` must see every step of the grid once, in order."""

    name: str
    """Part of every snapshot's identity."""

    @property
    def timesteps(self) -> Sequence[float]:
        """What the velocity of each step is asked at: 0 … 1000, falling; where frames have timesteps of their own, the
        number of the step.
        """
        ...

    @property
    def position(self) -> int:
        """Steps done."""
        ...

    def step(self, velocity: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """From the velocity at `sample` to the next sample, both fp32 of one shape. ValueError after the last step."""
        ...

    def state(self) -> SamplerState:
        """A view of the state between two steps; its tensors must not be changed."""
        ...

    def restore(self, state: SamplerState, device: torch.device) -> None:
        """Continues where `state` was taken. KeyError when a part of it is missing."""
        ...


class FlowUniPC:
    """One run's sampler; it knows its position. `step` must see every step of the grid once, in order."""

    name = "flow-unipc-2"

    def __init__(self, steps: int, flow_shift: float, train_timesteps: int = TRAIN_TIMESTEPS) -> None:
        """The grid: σ falls evenly from 1 − 1/N to 0, then is shifted to s·σ / (1 + (s − 1)·σ).

        Args:
            steps: number of steps, ≥ 1.
            flow_shift: s; larger spends more steps at high noise.
            train_timesteps: N; timesteps are ⌊N·σ⌋.
        """
        self._solver = UniPCMultistepScheduler(
            num_train_timesteps=train_timesteps,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=flow_shift,
        )
        rising = 1.0 - np.linspace(1, 1 / train_timesteps, steps + 1)
        self._solver.set_timesteps(sigmas=rising[::-1][:-1].copy())
        # Counting from here spares the library's search by timestep, which skips a step where two timesteps are equal.
        self._solver.set_begin_index(0)
        self.timesteps: tuple[int, ...] = tuple(int(timestep) for timestep in self._solver.timesteps)

    @property
    def sigmas(self) -> torch.Tensor:
        """[steps + 1] fp32, the last one 0."""
        sigmas: torch.Tensor = self._solver.sigmas
        return sigmas

    @property
    def position(self) -> int:
        """Steps done."""
        return int(self._solver.step_index or 0)

    def step(self, velocity: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """From the velocity at `sample` to the next sample, both fp32 of one shape.

        Raises:
            ValueError: the grid is used up.
        """
        if self.position >= len(self.timesteps):
            raise ValueError(f"all {len(self.timesteps)} steps are done")
        timestep = self.timesteps[self.position]
        (following,) = self._solver.step(velocity, timestep, sample, return_dict=False)
        result: torch.Tensor = following
        return result

    def forget_start(self, sample: torch.Tensor) -> None:
        """Takes `sample` for what the last step started from; `components.forcing` says who needs that."""
        self._solver.last_sample = sample

    def state(self) -> SamplerState:
        """A view of the state between two steps; its tensors must not be changed."""
        solver = self._solver
        tensors = {f"output.{age}": output for age, output in enumerate(solver.model_outputs) if output is not None}
        if solver.last_sample is not None:
            tensors["last_sample"] = solver.last_sample
        counters = {
            "position": self.position,
            "order": getattr(solver, "this_order", None),  # set by the first step, read by the next corrector
            "warm": solver.lower_order_nums,
            "timesteps": list(solver.timestep_list),
        }
        return SamplerState(tensors, counters)

    def restore(self, state: SamplerState, device: torch.device) -> None:
        """Continues where `state` was taken; the rest is bit-identical on the same kind of device."""
        solver, counters = self._solver, state.counters
        tensors = {name: tensor.to(device) for name, tensor in state.tensors.items()}
        solver.model_outputs = [tensors.get(f"output.{age}") for age in range(solver.config.solver_order)]
        solver.last_sample = tensors.get("last_sample")
        solver.timestep_list = list(counters["timesteps"])
        solver.lower_order_nums = int(counters["warm"])
        position = int(counters["position"])
        solver._step_index = position if position else None
        if counters["order"] is not None:
            solver.this_order = int(counters["order"])
