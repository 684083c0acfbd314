"""What every rank of a group does, whatever it computes: numbered commands, the world, inputs, and how it fails."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch

from cluster.config import Config
from cluster.errors import StageError, Unavailable
from cluster.pools import Pool
from cluster.records import Handle
from components.device import Placement
from components.errors import SnapshotMismatch
from components.usp import init_group
from components.values import Value
from deployments.artifacts import ArtifactStore
from deployments.failures import translated
from deployments.group.commands import SNAPSHOT_MISMATCH, Command, Done, Failed, Outcome
from deployments.group.spans import RankSpans
from deployments.hints import Hints
from deployments.telemetry import HandoffMetrics
from deployments.tracing import Tracer
from deployments.transport_ray import open_transport

V = TypeVar("V", bound=Value)


class WrongNumber(Exception):
    """A command does not follow the last one; nothing was done."""


class Member(ABC):
    """Carries out commands one after the other. Everything happens on the thread that made it."""

    def __init__(self, config: Config, pool: Pool, rank: int) -> None:
        """Loads nothing yet. Unsupported: the device is not there."""
        torch.set_num_threads(pool.threads)
        self._config = config
        self._pool = pool
        self._rank = rank
        self._placement = Placement.of("cuda" if pool.num_gpus > 0 else "cpu")
        self._artifacts = ArtifactStore.of(config)
        self._transport = open_transport(config, self._artifacts, cache_nbytes=0)
        self._metrics = HandoffMetrics()
        self._spans = RankSpans(Tracer(config.tracing, f"{pool.name} rank {rank}"), rank)
        self._io = asyncio.Runner()
        self._last = 0
        self._awaited = False  # whether peers may wait for this rank in a collective

    def join(self, address: str, port: int) -> None:
        """Meets the other ranks; not for a rank alone.

        Raises:
            Unsupported: the backend does not work here.
            torch.distributed.DistError: they did not come in time.
        """
        cuda = self._placement.device.type == "cuda"
        if cuda:
            torch.cuda.set_device(0)  # the one device that Ray gave this process
        init_group(
            rank=self._rank,
            world_size=self._pool.ranks,
            address=address,
            port=port,
            timeout_s=self._config.denoise.step_timeout_s,
            backend="nccl" if cuda else "gloo",
        )

    def close(self) -> None:
        """Lets go of everything. A process that ends needs no such thing."""
        self._io.close()
        self._spans.close()

    def execute(self, number: int, command: Command) -> Outcome:
        """Carries out one command; an error of its job is an answer.

        Raises:
            WrongNumber: commands were lost or repeated.
        """
        if number != self._last + 1:
            raise WrongNumber(f"rank {self._rank} got command {number} after {self._last}")
        self._last = number
        self._awaited = False
        began = time.perf_counter()
        outcome = self._outcome(command)
        self._spans.carried_out(command, outcome, time.perf_counter() - began)
        return outcome

    def _outcome(self, command: Command) -> Outcome:
        try:
            with translated():
                return self._carry_out(command)
        except Exception as error:  # noqa: BLE001 (the boundary between a job's work and the rank)
            return self._failed(command, error)

    @abstractmethod
    def _carry_out(self, command: Command) -> Done:
        """Does what one command says."""

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Work that all ranks do at once: whoever leaves it by an error leaves its peers waiting."""
        self._awaited = True
        yield
        self._awaited = False

    def _failed(self, command: Command, error: Exception) -> Failed:
        reason = f"rank {self._rank}, {type(command).__name__}: {type(error).__name__}: {error}"
        broken = self._awaited and self._pool.ranks > 1
        if isinstance(error, StageError):
            return Failed(error.code, error.message, reason, error.retryable, broken)
        if isinstance(error, Unavailable):
            return Failed(error.code, error.message, reason, True, broken)
        code = SNAPSHOT_MISMATCH if isinstance(error, SnapshotMismatch) else StageError.code
        message = f"The work failed with {type(error).__name__}; the operator's log has the details."
        return Failed(code, message, reason, True, broken)

    def _empty(self) -> None:
        """Gives the device's memory back that old weights held."""
        if self._placement.device.type == "cuda":
            torch.cuda.empty_cache()

    def _open(self, handle: Handle, hints: Hints, kind: type[V]) -> V:
        value = self._io.run(self._transport.get(handle, hints.get(handle.key)))
        self._metrics.publish(self._transport.counters)
        if not isinstance(value, kind):
            raise TypeError(f"{handle.key} holds {value.kind}, not {kind.kind}")
        return value

    def _write(self, step: int, key: str, values: Mapping[str, Value]) -> Done:
        """Rank 0 hands values over to the next stages, by port."""
        if self._rank:
            return Done(step)
        handles = {
            port: self._io.run(self._transport.put(f"{key}{port}.safetensors", value)) for port, value in values.items()
        }
        hints = self._transport.lend(handles.values())
        self._transport.release(key)
        self._metrics.publish(self._transport.counters)
        return Done(step, handles=handles, hints=hints)
