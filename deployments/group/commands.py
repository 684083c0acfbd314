"""What ranks are told and what they answer. Small records; values go by handle.

Every rank gets every command with the same number, counted from 1 since the ranks started. A rank refuses a number that
does not follow its last one: it has missed or repeated something, so its peers may be in another collective.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.errors import Damaged, NonFinite, OutOfMemory, SkyreelsError, StageError, Unavailable
from cluster.records import Handle, StageWork
from deployments.hints import Hints
from deployments.segments import Written

SNAPSHOT_MISMATCH = "snapshot_mismatch"
STORAGE_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Load:
    """Loads a model's weights beside or in place of those loaded, and shares their work as the pool says."""

    model: str
    instead_of: str | None = None  # a model that goes first


@dataclass(frozen=True, slots=True)
class Prepare:
    """Fetches a job's inputs and builds its run, from the snapshot of `work` if there is one. First phase: any rank may
    refuse, and no other notices.
    """

    job: str
    work: StageWork
    hints: Hints = field(default_factory=dict)  # for its inputs


@dataclass(frozen=True, slots=True)
class Commit:
    """Admits a run that every rank has prepared."""

    job: str


@dataclass(frozen=True, slots=True)
class Step:
    """Advances a run by one step, together. The only command whose work is shared."""

    job: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rank 0 writes the run as it is between two steps under `key`."""

    job: str
    key: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Rank 0 writes the results, each port's under `key` + port; a decode has written all but its last segments
    already.
    """

    job: str
    key: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Forgets a run, prepared or admitted; one that is not there is fine."""

    job: str


Command = Load | Prepare | Commit | Step | Snapshot | Finish | Drop


@dataclass(frozen=True, slots=True)
class Done:
    """The command was carried out. `step` counts the run's finished steps; `handle` names the snapshot that rank 0
    wrote, `handles` the results by port, and `hints` lead to those; `segments` are those of a decode that rank 0 wrote
    since its last answer. `weights` names the content of the weights that were loaded, or that the step was made with;
    those of a VAE have no name.
    """

    step: int = 0
    handle: Handle | None = None
    handles: Mapping[str, Handle] = field(default_factory=dict)
    hints: Hints = field(default_factory=dict)
    segments: tuple[Written, ...] = ()
    weights: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The command failed for its job. `broken` means that peers may still wait in a collective for this rank."""

    code: str
    message: str  # for the client
    reason: str  # for the operator
    retryable: bool
    broken: bool = False

    def error(self) -> SkyreelsError:
        """The same in the job plane's tree."""
        if self.code == Unavailable.code:
            return Unavailable(self.message, retry_after_s=STORAGE_RETRY_S)
        kinds = {kind.code: kind for kind in (Damaged, NonFinite, OutOfMemory)}
        return kinds.get(self.code, StageError)(self.message, retryable=self.retryable)


Outcome = Done | Failed
