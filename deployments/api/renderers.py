"""What a webhook says, in the dialect that its job was asked for in. Pure: the same event gives the same body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cluster.records import Dialect, Event, Job
from deployments.api.links import Links
from deployments.api.runware import views as runware
from deployments.api.wavespeed import views as wavespeed

# (job, the event it tells of, index of the result it tells of or None for the whole job) → JSON object
Render = Callable[[Job, Event, int | None], dict[str, Any]]


def renderers(links: Links) -> Mapping[Dialect, Render]:
    """The bodies of the hosted APIs' webhooks, with addresses that their receivers can fetch."""

    def for_wavespeed(job: Job, _event: Event, _result: int | None) -> dict[str, Any]:
        return wavespeed.webhook(job, links)

    def for_runware(job: Job, _event: Event, result: int | None) -> dict[str, Any]:
        return runware.webhook(job, result, links)

    return {Dialect.WAVESPEED: for_wavespeed, Dialect.RUNWARE: for_runware}
