"""One process's part of a denoiser group: DiT weights, the resident runs, and its side of the collectives.

Every rank holds whole latents between steps and computes the same run bit by bit, so only rank 0 writes and no rank
asks another for anything but its part of a forward. Outside of a step no collective is open.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.config import Config
from cluster.errors import Damaged, NotFound
from cluster.pools import Pool
from cluster.records import Handle, StageWork
from cluster.registry import MODELS
from components import checkpoints
from components.branches import Branches, in_turn
from components.denoiser import Denoiser, Run, Task
from components.errors import NonFiniteLatents, SnapshotMismatch
from components.snapshot import Snapshot
from components.usp import BranchParallel, Meshes, SequenceParallel, pick, vote
from components.values import RandomState, Value
from deployments.group import commands
from deployments.group.commands import Command, Done
from deployments.group.member import Member
from deployments.group.shelf import Shelf
from deployments.group.tasks import TASKS, spec_of
from deployments.hints import Hints


@dataclass(frozen=True, slots=True)
class _Resident:
    """A run and the weights that it is of."""

    denoiser: Denoiser
    run: Run

    @property
    def told(self) -> Done:
        """Where the run is, and whose weights it is of."""
        return Done(self.run.step, weights=self.denoiser.task.weights)


class Rank(Member):
    """See `Member`."""

    def __init__(self, config: Config, pool: Pool, rank: int) -> None:
        """As `Member`."""
        super().__init__(config, pool, rank)
        self._meshes: Meshes | None = None
        self._denoisers: dict[str, Denoiser] = {}  # on the device, by model
        self._shelf = Shelf(config.denoise.host_nbytes)
        self._prepared: dict[str, _Resident] = {}
        self._runs: dict[str, _Resident] = {}

    def join(self, address: str, port: int) -> None:
        """As `Member.join`."""
        super().join(address, port)
        self._meshes = Meshes(self._placement.device.type, self._config.denoise.step_timeout_s)

    def close(self) -> None:
        """As `Member.close`."""
        self._runs, self._prepared, self._denoisers = {}, {}, {}
        self._shelf.clear()
        super().close()

    def _carry_out(self, command: Command) -> Done:  # noqa: PLR0911 (one for each command)
        match command:
            case commands.Load(model, instead_of):
                return Done(weights=self._load(model, instead_of).task.weights)
            case commands.Prepare(job, work, hints):
                self._prepared[job] = self._build(work, hints)
                return self._prepared[job].told
            case commands.Commit(job):
                self._runs[job] = self._prepared.pop(job)
                return self._runs[job].told
            case commands.Step(job):
                return self._step(self._runs[job])
            case commands.Snapshot(job, key):
                return self._snapshot(self._runs[job], key)
            case commands.Finish(job, key):
                return self._finish(self._runs[job], key)
            case commands.Drop(job):
                self._prepared.pop(job, None)
                self._runs.pop(job, None)
                return Done()

    def _load(self, model: str, instead_of: str | None) -> Denoiser:
        if instead_of is not None:
            if (old := self._denoisers.pop(instead_of, None)) is not None:
                self._shelf.put(instead_of, old)  # the old weights go before the new ones come
            self._empty()
        if (waiting := self._shelf.take(model, self._placement.device)) is not None:
            self._denoisers[model] = waiting
            return waiting
        served = next(served for served in self._config.models if served.name == model)
        root: Path = checkpoints.resolve(served.checkpoint, served.revision)
        load = TASKS[MODELS[model].graph]
        task = load(root, self._placement, self._config.denoise.attention)
        self._denoisers[model] = Denoiser(task, self._share(task))
        return self._denoisers[model]

    def _share(self, task: Task) -> Branches:
        """Shares the forwards among the ranks as the pool says; how the branches of a step are carried out."""
        pool, heads = self._pool, int(task.model.config.num_attention_heads)
        layout = pick(pool.ranks // pool.branches, heads, pool.ulysses, pool.ring)
        if self._meshes is None:
            return in_turn
        sequence = SequenceParallel(task.model, self._meshes, None if pool.engine == "torch" else pool.engine)
        if pool.branches > 1:
            return BranchParallel(sequence, self._meshes, inner=layout, whole=pick(pool.ranks, heads))
        sequence.use(layout)
        return in_turn

    def _build(self, work: StageWork, hints: Hints) -> _Resident:
        request = work.request
        denoiser = self._denoisers.get(request.model)
        if denoiser is None:
            raise RuntimeError(f"{request.model} is not loaded")
        ref, flow_shift = work.call.ref, self._config.registry.models[request.model].flow_shift
        spec = spec_of(request, ref.chunk, ref.result, flow_shift)
        inputs = [
            self._open(work.inputs[port], hints, kind) if port in work.inputs else RandomState.fresh()
            for port, kind in denoiser.ports.items()
        ]
        if work.snapshot is None:
            return _Resident(denoiser, denoiser.begin(spec, *inputs))
        return _Resident(denoiser, denoiser.restore(self._read(work.snapshot), spec, *inputs))

    def _read(self, handle: Handle) -> Snapshot:
        """A stored snapshot. SnapshotMismatch when it is gone or damaged: the job starts over."""
        try:
            return Snapshot.from_bytes(self._io.run(self._artifacts.get_bytes(handle.uri, handle.sha256)))
        except (NotFound, Damaged) as error:
            raise SnapshotMismatch(error.message) from error

    def _step(self, resident: _Resident) -> Done:
        """All ranks fail together or not at all, so that no later step waits for one of them."""
        failure: NonFiniteLatents | None = None
        run = resident.run
        with self._together():
            try:
                resident.denoiser.step(run)
            except NonFiniteLatents as error:
                failure = error
            if self._meshes is not None and vote(failure is not None) and failure is None:
                failure = NonFiniteLatents(f"The latents became NaN or Inf on another rank in step {run.step}.")
        if failure is not None:
            raise failure
        return resident.told

    def _snapshot(self, resident: _Resident, key: str) -> Done:
        step = resident.run.step
        if self._rank:
            return Done(step)
        data = resident.denoiser.snapshot(resident.run).to_bytes()
        stored = self._io.run(self._artifacts.put_bytes(key, data))
        return Done(step, Handle(key, "Snapshot", stored.uri, stored.nbytes, sha256=stored.sha256))

    def _finish(self, resident: _Resident, key: str) -> Done:
        values: dict[str, Value] = {"latents": resident.denoiser.finish(resident.run)}
        if "random" in resident.denoiser.ports:
            values["random"] = RandomState.of(resident.run.generator)
        return self._write(resident.run.step, key, values)
