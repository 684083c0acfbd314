"""Carries parcels of the outbox to their receivers: claim, send, settle, as long as the process lives.

Everything durable is in the store. A carrier that dies leaves leases that run out; what it was sending is sent again by
another, so receivers get everything at least once and tell repeats by the delivery's id.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus

from opentelemetry.trace import SpanKind

from cluster.config import Deliveries
from cluster.deliveries import Outcome, Parcel, ParcelKind, ParcelState
from cluster.errors import Damaged, NotFound, Unavailable
from cluster.policy.sending import UNKNOWN_ROOM, Receivers, backoff_s
from cluster.records import Artifact, Dialect, Job
from cluster.store.base import JobStore
from cluster.store.news import Topic
from deployments.api.files import pieces
from deployments.artifacts import ArtifactStore
from deployments.outbound import Answer, Content, Outbound, SendError
from deployments.telemetry import bound
from deployments.tracing import OFF, Tracer, now_ns
from deployments.webhooks import Render, body, signed

PURGE_S = 60.0
Action = Callable[[], Awaitable[None]]
Told = Callable[[Parcel, Outcome, float], None]  # after each attempt: how it ended, and its seconds


class Carrier:
    """One process's sends."""

    def __init__(
        self,
        store: JobStore,
        artifacts: ArtifactStore,
        outbound: Outbound,
        renders: Mapping[Dialect, Render],
        settings: Deliveries,
        log: logging.Logger,
        told: Told,
        tracer: Tracer = OFF,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._outbound = outbound
        self._renders = renders
        self._settings = settings
        self._log = log
        self._told = told
        self._tracer = tracer
        self._dice = secrets.SystemRandom()
        self._receivers = Receivers(concurrency=settings.concurrency, per_host=settings.per_host)
        self._sends: dict[asyncio.Task[None], Parcel] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._watch = store.watch(Topic.DELIVERIES)
        self._purged = time.monotonic()

    def start(self) -> None:
        """Begins to carry, in the running event loop."""
        loops = ((self._claim, self._woken), (self._keep, self._third_of_lease))
        self._loops = [asyncio.create_task(self._every(act, wait)) for act, wait in loops]

    def wake(self) -> None:
        """Something may be due."""
        self._watch.tell()

    @property
    def healthy(self) -> bool:
        """False once a loop has died."""
        return not any(loop.done() for loop in self._loops)

    async def close(self) -> None:
        """Stops, and gives back what was not sent to its end."""
        for task in (*self._loops, *self._sends):
            task.cancel()
        left = list(self._sends.values())
        await asyncio.gather(*self._loops, *self._sends, return_exceptions=True)
        try:
            for parcel in left:
                await self._store.settle_parcel(parcel, Outcome(ParcelState.PENDING, error="interrupted by a restart"))
        except Unavailable as error:
            self._log.warning("deliveries not given back: %s", error)

    # -- loops -------------------------------------------------------------------------------------------------
    async def _every(self, act: Action, wait: Action) -> None:
        while True:
            try:
                await act()
            except Unavailable as error:
                self._log.warning("job store unavailable: %s", error)
            await wait()

    async def _woken(self) -> None:
        await self._watch.wait(self._settings.poll_s)

    async def _claim(self) -> None:
        """First the receivers that did not fail last time, then the others within their share of the slots."""
        for rule in (self._receivers.healthy, self._receivers.failing):
            limit, room = rule()
            if limit > 0:
                lease_s = self._settings.lease_s
                for parcel in await self._store.claim_parcels(
                    limit=limit, per_host=UNKNOWN_ROOM, lease_s=lease_s, room=room
                ):
                    self._begin(parcel)

    async def _keep(self) -> None:
        """Holds the leases of what is being sent; forgets what is long settled."""
        if self._sends:
            await self._store.renew_parcels(list(self._sends.values()), self._settings.lease_s)
        if time.monotonic() - self._purged >= PURGE_S:
            self._purged = time.monotonic()
            await self._store.purge_parcels(self._settings.keep_s)

    async def _third_of_lease(self) -> None:
        await asyncio.sleep(self._settings.lease_s / 3)

    # -- one parcel --------------------------------------------------------------------------------------------
    def _begin(self, parcel: Parcel) -> None:
        self._receivers.begin(parcel.host)
        task = asyncio.create_task(self._carry(parcel))
        self._sends[task] = parcel
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A send that broke by a fault of ours is tried again when its lease ends, and given up like any other."""
        parcel = self._sends.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            fields = {"job": parcel.job_id, "delivery": parcel.id}
            self._log.error("delivery broke", exc_info=error, extra=fields)
        self._watch.tell()

    async def _carry(self, parcel: Parcel) -> None:
        with bound(job=parcel.job_id, delivery=parcel.id, kind=parcel.kind.value, attempt=parcel.attempts):
            began = time.monotonic()
            well = False
            try:
                outcome = await self._attempt(parcel)
                well = outcome.state is ParcelState.DELIVERED
                kept = await self._store.settle_parcel(parcel, outcome)
            except Unavailable as error:  # the lease runs out, then it is sent again
                self._log.warning("delivery not recorded: %s", error)
                return
            finally:
                self._receivers.end(parcel.host, well=well)
            if kept:
                self._told(parcel, outcome, time.monotonic() - began)
                self._log.info(outcome.state.value, extra={"status": outcome.status, "error": outcome.error})

    async def _attempt(self, parcel: Parcel) -> Outcome:
        if parcel.attempts > self._settings.max_attempts:
            return Outcome(ParcelState.DEAD, error="was given up: its last attempts did not come to an end")
        send = self._post if parcel.kind is ParcelKind.WEBHOOK else self._put
        try:
            return self._judge(parcel, await send(parcel))
        except NotFound as error:
            return Outcome(ParcelState.DEAD, error=error.message)
        except SendError as error:
            return self._failed(parcel, str(error))

    async def _post(self, parcel: Parcel) -> Answer:
        subject = await self._store.parcel_subject(parcel)
        if subject is None:
            raise NotFound("The job was deleted.")
        data = body(self._renders, *subject, parcel.result)
        headers = signed(parcel.id, data, await self._store.webhook_secrets(parcel.tenant_id), datetime.now(UTC))
        with self._span(parcel, subject[0]):
            return await self._outbound.send("POST", parcel.url, data, headers, timeout_s=self._settings.timeout_s)

    async def _put(self, parcel: Parcel) -> Answer:
        subject = await self._store.parcel_subject(parcel)
        if subject is None:
            raise NotFound("The job was deleted.")
        file = _file(subject[0], parcel)
        headers = {"Content-Type": file.media_type}
        try:
            stored = await self._artifacts.open_input(file.uri)
            content = Content(pieces(stored, 0, file.nbytes, file.sha256), file.nbytes)
            timeout_s = self._settings.upload_timeout_s
            with self._span(parcel, subject[0]):
                return await self._outbound.send("PUT", parcel.url, content, headers, timeout_s=timeout_s)
        except (Damaged, Unavailable) as error:
            raise SendError("was not sent: the file cannot be read now") from error

    @contextmanager
    def _span(self, parcel: Parcel, job: Job) -> Iterator[None]:
        """One attempt's, under its job's."""
        began_ns, error = now_ns(), None
        try:
            yield
        except SendError as raised:
            error = str(raised)
            raise
        finally:
            kind = parcel.kind.value
            self._tracer.span(
                job.request.trace,
                f"{parcel.id}/{parcel.epoch}",
                f"send {kind}",
                began_ns,
                parent=parcel.job_id,
                error=error,
                kind=SpanKind.CLIENT,
                attributes={"job": parcel.job_id, "delivery": parcel.id, "attempt": parcel.attempts},
            )

    def _judge(self, parcel: Parcel, answer: Answer) -> Outcome:
        status = answer.status
        if 200 <= status < 300:
            return Outcome(ParcelState.DELIVERED, status)
        if status == HTTPStatus.GONE:
            return Outcome(ParcelState.DEAD, status, "answered that it is gone for good (status 410)")
        reason = f"answered with status {status}"
        if 300 <= status < 400:
            reason += ", a redirect, which is not followed"
        return self._failed(parcel, reason, status, answer.retry_after_s)

    def _failed(self, parcel: Parcel, reason: str, status: int | None = None, wait_s: float = 0.0) -> Outcome:
        settings = self._settings
        if parcel.attempts >= settings.max_attempts:
            return Outcome(ParcelState.DEAD, status, reason)
        delay_s = backoff_s(
            parcel.attempts, first_s=settings.backoff_s, most_s=settings.backoff_max_s, dice=self._dice.random()
        )
        return Outcome(ParcelState.PENDING, status, reason, max(delay_s, wait_s))


def _file(job: Job, parcel: Parcel) -> Artifact:
    """What an upload sends. NotFound."""
    artifact = job.results[parcel.result or 0].artifact
    if artifact is None:
        raise NotFound("The result is not there.")
    return artifact
