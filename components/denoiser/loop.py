"""The loop that all families share.

A Denoiser owns a task, and all randomness; a Run is one video on its way. Runs share nothing that changes, so they may
be interleaved step by step. Given equal inputs every process computes the same run, which lets a group of ranks hold
whole latents each and draw nothing from each other.

Random numbers come from one CPU generator per run, seeded by the request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from components.branches import Branches, in_turn
from components.denoiser.spec import DenoiseSpec
from components.denoiser.task import Flow, Task
from components.errors import NonFiniteLatents, SnapshotMismatch
from components.sampler import Sampler, SamplerState
from components.snapshot import Snapshot
from components.values import Latents, Value

__all__ = ["Denoiser", "Run", "Snapshot"]

SNAPSHOT_FORMAT = 1
_SAMPLER_PREFIX = "sampler."


@dataclass(slots=True)
class Run:
    """One video between noise and finished latents. Made by a Denoiser and changed by its `step` only."""

    spec: DenoiseSpec
    latents_BCTHW: torch.Tensor  # fp32
    flow: Flow
    sampler: Sampler
    generator: torch.Generator
    inputs: Mapping[str, str]  # digests of the task's inputs, by port

    @property
    def step(self) -> int:
        """Steps done."""
        return self.sampler.position

    @property
    def done(self) -> bool:
        return self.step >= self.steps

    @property
    def steps(self) -> int:
        """All of its steps: the sampler's, which may be more than the spec's where frames take turns."""
        return len(self.sampler.timesteps)


class Denoiser:
    """Runs a task's sampler over its flow. Holds weights and no run."""

    def __init__(self, task: Task, branches: Branches = in_turn) -> None:
        """Wraps a task.

        Args:
            task: adopted.
            branches: how the evaluations of one step are carried out; may be exchanged between steps.
        """
        self.task = task
        self.branches = branches

    @property
    def ports(self) -> Mapping[str, type[Value]]:
        """What `begin` and `restore` take beside the spec, in this order."""
        return self.task.ports

    def begin(self, spec: DenoiseSpec, *inputs: Value) -> Run:
        """A run before its first step.

        Args:
            spec: sizes, steps, seed and whatever else the task's family asks for.
            inputs: one value per port of the task.

        Raises:
            ValueError: they do not fit the task or the spec.
        """
        if len(inputs) != len(self.ports):
            raise ValueError(f"a run starts from {', '.join(self.ports)}, not from {len(inputs)} values")
        named = dict(zip(self.ports, inputs, strict=True))
        generator = torch.Generator("cpu").manual_seed(spec.seed)
        start = self.task.begin(spec, named, generator)
        return Run(
            spec=spec,
            latents_BCTHW=start.latents_BCTHW,
            flow=start.flow,
            sampler=self.task.sampler(spec),
            generator=generator,
            inputs={port: _digest(value.tensors()) for port, value in named.items()},
        )

    def step(self, run: Run) -> None:
        """Advances a run by one step.

        Raises:
            NonFiniteLatents: the result has NaN or Inf; the run cannot continue, others can.
            ValueError: the run is done.
        """
        if run.done:
            raise ValueError(f"all {run.steps} steps of this run are done")
        timesteps = run.sampler.timesteps
        velocity_BCTHW = run.flow.velocity(run.latents_BCTHW, timesteps[run.step], self.branches)
        latents_BCTHW = run.sampler.step(velocity_BCTHW, run.latents_BCTHW)
        latents_BCTHW = run.flow.settle(latents_BCTHW, 0 if run.done else timesteps[run.step])
        if not bool(torch.isfinite(latents_BCTHW).all()):
            raise NonFiniteLatents(f"The latents became NaN or Inf in step {run.step} of {run.steps}.")
        run.latents_BCTHW = latents_BCTHW

    def finish(self, run: Run) -> Latents:
        """The finished latents. ValueError before the last step."""
        if not run.done:
            raise ValueError(f"only {run.step} of {run.steps} steps are done")
        return run.flow.result(run.latents_BCTHW)

    def snapshot(self, run: Run) -> Snapshot:
        """The run between two steps, copied to CPU: `restore` continues it in any process with the same weights."""
        state = run.sampler.state()
        tensors = {"latents": run.latents_BCTHW, "generator": run.generator.get_state()}
        tensors |= {_SAMPLER_PREFIX + name: tensor for name, tensor in state.tensors.items()}
        meta = self._identity(run) | {"step": run.step, "counters": dict(state.counters)}
        return Snapshot({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, meta)

    def restore(self, snapshot: Snapshot, spec: DenoiseSpec, *inputs: Value) -> Run:
        """Continues a run; on the same kind of device the rest is bit-identical.

        What the task drew before the first step is drawn again rather than stored: same seed, same order, same values.

        Raises:
            SnapshotMismatch: it was taken with other weights, another solver, spec or inputs, or in another format.
            ValueError: the inputs do not fit the task or the spec.
        """
        run = self.begin(spec, *inputs)
        for field, expected in self._identity(run).items():
            if (found := snapshot.meta.get(field)) != expected:
                raise SnapshotMismatch(f"The snapshot has {field} {found!r} where this run has {expected!r}.")
        tensors = snapshot.tensors
        try:
            latents_BCTHW, generator_state = tensors["latents"], tensors["generator"]
            state = SamplerState(
                {
                    name.removeprefix(_SAMPLER_PREFIX): tensors[name]
                    for name in tensors
                    if name.startswith(_SAMPLER_PREFIX)
                },
                snapshot.meta["counters"],
            )
            run.sampler.restore(state, self.task.device)
        except KeyError as error:
            raise SnapshotMismatch(f"The snapshot lacks {error}; start the run again.") from error
        if latents_BCTHW.shape != run.latents_BCTHW.shape:
            raise SnapshotMismatch(
                f"The snapshot has latents {tuple(latents_BCTHW.shape)} where this run has "
                f"{tuple(run.latents_BCTHW.shape)}."
            )
        run.latents_BCTHW = latents_BCTHW.to(self.task.device)
        run.generator.set_state(generator_state)
        return run

    def _identity(self, run: Run) -> dict[str, Any]:
        """What must agree between a snapshot and the run that continues it, field by field."""
        numbers = {f"spec.{name}": value for name, value in asdict(run.spec).items()}
        return {
            "format": SNAPSHOT_FORMAT,
            "weights": self.task.weights,
            "solver": run.sampler.name,
            **numbers,
            **run.inputs,
        }


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, 32 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
