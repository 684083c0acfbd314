"""The door: a draft and its media become a stored job, or one clear refusal and nothing at all.

Order matters: limits first, then media (fetched side by side, bounded, probed), then files, then the job row. The
row is the commit (`deployments.api.commits`): files of a request that was refused later are removed, a job without its
files cannot exist.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace

from opentelemetry.trace import SpanKind

from cluster.canonical import Draft, canonical, check, check_given, word
from cluster.config import Config
from cluster.errors import InvalidRequest, MediaRejected
from cluster.files import FileInfo, UploadedFile
from cluster.records import Delivery, Job, Media
from cluster.registry import Model
from cluster.store.base import JobStore
from cluster.tenancy import Once
from cluster.trace import Trace
from cluster.wiring import graph, graph_name
from components.media.image import probe
from deployments.api.commits import Commits, removed_when_refused
from deployments.api.media import Examiner, File, Seen, given_of, naming
from deployments.api.sources import (
    Base64Source,
    DataUriSource,
    FileSource,
    Reference,
    ResultSource,
    UploadSource,
    UrlSource,
)
from deployments.artifacts import ArtifactStore, job_key, job_prefix
from deployments.fetch import Fetcher, decode_base64, decode_data_uri
from deployments.outbound import Outbound
from deployments.telemetry import Laps, bound, logger
from deployments.tracing import OFF, Tracer, caller, now_ns


class Intake:
    """Turns checked drafts into jobs."""

    def __init__(
        self, store: JobStore, artifacts: ArtifactStore, fetcher: Fetcher, config: Config, tracer: Tracer = OFF
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._fetcher = fetcher
        self._limits = config.media
        self._extends = config.extends_prompts
        self._examiner = Examiner(artifacts, config.media)
        self._outbound = Outbound(config.media.allow_hosts)
        self._tenants = config.limits
        self._prices = config.price_table
        self._keep_s = config.artifacts.keep_s
        self._commits = Commits()
        self._tracer = tracer
        self._sample = config.tracing.sample if config.tracing.endpoint is not None else 0.0

    async def accept(
        self, model: Model, draft: Draft, references: Sequence[Reference], tenant: str, once: Once | None = None
    ) -> Job:
        """Stores a job for the draft; the earlier one when its idempotency key has made one.

        Raises:
            InvalidRequest: a limit, a URL or a medium is refused; nothing was stored.
            Conflict: the idempotency key came with another request.
            LimitExceeded: a limit of the tenant is reached; nothing was stored.
            Unavailable: the job store or the artifact store is not reachable.
        """
        began_ns = now_ns()
        # Before any work: what was accepted once is not fetched again.
        if once is not None and (known := await self._store.replayed(tenant, once)) is not None:
            return known
        check(model, draft)
        self._check_extender(draft)
        await self._check_receivers(draft.delivery)
        files = await asyncio.gather(*(self._read(reference, tenant) for reference in references))
        # One after the other: a decoded image is far larger than its file.
        seen = [
            await self._examiner.look(model, draft, reference, file)
            for reference, file in zip(references, files, strict=True)
        ]
        check_given(model, draft, given_of(seen))
        found = list(zip(references, files, seen, strict=True))
        return await self._commits.run(self._create(model, draft, found, tenant, once, began_ns))

    async def _create(
        self,
        model: Model,
        draft: Draft,
        found: Sequence[tuple[Reference, File, Seen]],
        tenant: str,
        once: Once | None,
        began_ns: int,
    ) -> Job:
        """Stores the files, then the row. As `accept`."""
        job_id = f"video_{secrets.token_hex(12)}"
        async with removed_when_refused(self._artifacts, job_prefix(job_id)):
            media: list[Media] = []
            for reference, file, item in found:
                with naming(reference.param):
                    media.append(await self._keep(job_id, len(media), file, item.media))
            trace = self._trace()
            request = replace(
                canonical(model, draft, given_of([item for _, _, item in found], media), ttl_s=self._keep_s),
                trace=trace,
            )
            laps = Laps()
            with laps.lap("create"):
                job = await self._store.create_job(
                    job_id,
                    tenant,
                    request,
                    graph(graph_name(model, request), request.n),
                    once=once,
                    limits=self._tenants.of(tenant),
                    price_usd=request.duration_s * self._prices.per_s_usd(request.model, request.resolution),
                )
        if job.id == job_id:
            with bound(trace_id=trace.id):
                logger().info("accepted", extra={"job": job_id, **laps.told()})
            parent = job_id if trace.parent is None else None
            self._tracer.span(trace, f"{job_id}/accept", "accept", began_ns, parent=parent, kind=SpanKind.SERVER)
        else:  # another request with this key was quicker
            await self._artifacts.delete_tree(job_prefix(job_id))
        return job

    def _trace(self) -> Trace:
        """The caller's, or a new one."""
        return caller.get() or Trace.new(sampled=secrets.SystemRandom().random() < self._sample)

    def _check_extender(self, draft: Draft) -> None:
        if draft.prompt_extend and not self._extends:
            param = word(draft.delivery.dialect, "prompt_extend")
            raise InvalidRequest(
                f"No prompt extender is served here; leave {param} out or set it to false.", param=param
            )

    async def _check_receivers(self, delivery: Delivery) -> None:
        for field, url in (("webhook_url", delivery.webhook_url), ("upload_url", delivery.upload_url)):
            if url is not None:
                param = word(delivery.dialect, field)
                await self._outbound.check(url, param=param, timeout_s=self._limits.fetch_timeout_s)

    async def inspect(self, references: Sequence[Reference], tenant: str) -> list[FileInfo | None]:
        """What the media are of a request that cannot become a job: None for a URL, as nothing is fetched for it.

        Raises:
            InvalidRequest: an image is refused, or an uploaded file does not exist.
            Unavailable: the job store is not reachable.
        """
        found: list[FileInfo | None] = []
        for reference in references:
            if isinstance(reference.source, UrlSource):
                found.append(None)
                continue
            file = await self._read(reference, tenant)
            if isinstance(file, UploadedFile):
                found.append(file.info)
            elif isinstance(file, bytes):
                with naming(reference.param):
                    image = await asyncio.to_thread(probe, file, max_pixels=self._limits.max_image_pixels)
                found.append(FileInfo("image", image.media_type, image.width, image.height))
        return found

    async def _read(self, reference: Reference, tenant: str) -> File:
        """A medium's bytes, at most `max_file_nbytes`, or the stored file that holds them. InvalidRequest."""
        limit = self._limits.max_file_nbytes
        with naming(reference.param):
            match reference.source:
                case UrlSource(url):
                    return await self._fetcher.fetch(url)
                case DataUriSource(uri):
                    return await asyncio.to_thread(decode_data_uri, uri, limit)
                case Base64Source(text):
                    return await asyncio.to_thread(decode_base64, text, limit)
                case UploadSource(data):
                    if len(data) > limit:
                        raise MediaRejected(f"the file has {len(data)} bytes; the limit is {limit}.")
                    return data
                case FileSource(file_id):
                    return await self._store.get_file(file_id, tenant)
                case ResultSource(artifact):
                    return artifact

    async def _keep(self, job_id: str, index: int, file: File, seen: Media) -> Media:
        """The job's own copy: what becomes of an uploaded file or an earlier job does not matter to it."""
        key = job_key(job_id, "inputs", f"{index}.{seen.media_type.rpartition('/')[2]}")
        if isinstance(file, bytes):
            stored = await self._artifacts.put_bytes(key, file)
        else:
            stored = await self._artifacts.copy(file.uri, key, sha256=file.sha256)
        return replace(seen, uri=stored.uri, nbytes=stored.nbytes, sha256=stored.sha256)
