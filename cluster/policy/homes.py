"""Whether a call goes to a replica that holds its model, where replicas hold fewer models than are served.

- A replica that holds the model and is idle: there.
- Every one that holds it works, but another is idle: anywhere, which is the idle one. Loading other weights costs time
  that nobody else would use.
- Nobody is idle: to one that holds it, so that no weights are exchanged in turns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.records import StageRef
from cluster.store.base import ClusterState, ReadyStage


@dataclass(slots=True)
class _Sent:
    """Calls of one plan that have no replica yet."""

    home: Counter[tuple[str, str]] = field(default_factory=Counter)  # to holders, by stage and model
    anywhere: Counter[str] = field(default_factory=Counter)  # by stage


def homes(state: ClusterState, refs: Sequence[StageRef]) -> dict[StageRef, str]:
    """By which model a call is to be routed, for those of a plan's calls that go to a holder."""
    ready = {item.ref: item for item in state.ready}
    sent = _Sent()
    return {ref: ready[ref].model for ref in refs if _goes_home(state, ready[ref], sent)}


def _goes_home(state: ClusterState, item: ReadyStage, sent: _Sent) -> bool:
    stage, model = item.ref.stage, item.model
    hosts = [worker for worker in state.workers if stage in worker.slots]
    if len(hosts) < 2 or not any(worker.loaded for worker in hosts):
        return False
    idle = [worker for worker in hosts if not state.held.get(worker.id)]
    at_home = sum(model in worker.loaded for worker in idle)
    elsewhere = len(idle) - at_home
    if at_home > sent.home[stage, model] or elsewhere <= sent.anywhere[stage]:
        sent.home[stage, model] += 1
        return True
    sent.anywhere[stage] += 1
    return False
