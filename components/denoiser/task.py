"""What a model family brings to the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from components.branches import Branches
from components.denoiser.spec import DenoiseSpec
from components.sampler import Sampler
from components.values import Latents, TextContext, Value

V = TypeVar("V", bound=Value)


class Flow(Protocol):
    """The vector field of one run: its constants, and how they enter the velocity. It changes in no call."""

    def velocity(self, latents_BCTHW: torch.Tensor, timestep: float, branches: Branches) -> torch.Tensor:
        """The velocity at `latents_BCTHW`, fp32 of its shape.

        Args:
            latents_BCTHW: the run's latents.
            timestep: of the sampler's grid, 0 … 1000.
            branches: carries out the evaluations of a guided step.
        """
        ...

    def settle(self, latents_BCTHW: torch.Tensor, timestep: float) -> torch.Tensor:
        """The latents with which the run goes on after a step; `timestep` is the next one, 0 after the last.

        Families that hold a part of the latents at a known value put it in again here. A flow that draws numbers for
        that keeps the generator that `Task.begin` got: it is the run's, and travels in snapshots.
        """
        return latents_BCTHW

    def result(self, latents_BCTHW: torch.Tensor) -> Latents:
        """What is decoded in the end."""
        return Latents(video_BCTHW=latents_BCTHW)


@dataclass(frozen=True, slots=True)
class Start:
    """A run before its first step. Tensors are on the task's device."""

    latents_BCTHW: torch.Tensor  # fp32
    flow: Flow


class Task(Protocol):
    """One family's weights and arithmetic. Holds no run."""

    ports: Mapping[str, type[Value]]
    """The values that a run starts from, in the order in which they are given; names are part of snapshots."""

    @property
    def model(self) -> Any:
        """The module whose forward may be shared among ranks (`components.usp.SequenceParallel`)."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def weights(self) -> str:
        """Names everything a snapshot depends on beside the run's own inputs, by content."""
        ...

    def sampler(self, spec: DenoiseSpec) -> Sampler:
        """A new sampler at its first step."""
        ...

    def begin(self, spec: DenoiseSpec, inputs: Mapping[str, Value], generator: torch.Generator) -> Start:
        """Draws what the family draws before the first step, from the run's CPU generator, in the original's order.

        It must depend on nothing but its arguments: a restored run begins again and then takes up its snapshot.

        Raises:
            ValueError: the inputs do not fit the model or the spec.
        """
        ...


def pick(inputs: Mapping[str, Value], port: str, kind: type[V]) -> V:
    """One input, of the kind that its port says. ValueError."""
    value = inputs[port]
    if not isinstance(value, kind):
        raise ValueError(f"{port} must be of kind {kind.kind}, not {type(value).__name__}")
    return value


def refuse_text_of_another_width(context: TextContext, width: int) -> None:
    """ValueError unless the DiT takes text rows of that width."""
    if context.prompt_BLD.shape[-1] != width:
        raise ValueError(f"the context is {context.prompt_BLD.shape[-1]} wide but the DiT takes {width}")
