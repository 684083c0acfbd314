"""Deletes the files of ended jobs: working files at once, results after their time or with the job; and uploaded files
that were deleted or have expired. A job's inputs are copies in its own folder, so none of these is ever in use.

With the working files go the results of abandoned attempts: files among the results that the job store does not name.
Files that cannot be removed now stay listed; they hold up neither other jobs' files nor the Scheduler.
"""

from __future__ import annotations

import logging
import re

from cluster.errors import Unavailable
from cluster.store.base import JobStore
from deployments.artifacts import ArtifactStore, file_prefix, job_prefix

ORPHAN_AGE_S = 3600.0  # far longer than any request takes
# Whatever else lies there is not ours to delete.
_JOB_ID = re.compile(r"video_[0-9a-z]+")
_FILE_ID = re.compile(r"file-[0-9a-f-]{36}")


class Sweeper:
    """A stateless sweep over the store's list; an interrupted one is repeated without harm."""

    def __init__(self, store: JobStore, artifacts: ArtifactStore, log: logging.Logger, *, keep_s: float) -> None:
        self._log = log
        self._store = store
        self._artifacts = artifacts
        self._keep_s = keep_s

    async def sweep_orphans(self) -> None:
        """Removes what no row names: the files of an Api that was killed before it wrote the row, and uploads that
        nobody completes any more.
        """
        try:
            await self._artifacts.sweep_temp()
            jobs = await self._ours("jobs", _JOB_ID)
            files = await self._ours("files", _FILE_ID)
        except Unavailable as error:
            return self._log.warning("orphans not looked for: %s", error)
        orphans = [job_prefix(job_id) for job_id in await self._store.unknown_jobs(jobs)]
        orphans += [file_prefix(file_id) for file_id in await self._store.unknown_files(files)]
        for prefix in orphans:
            try:
                if await self._artifacts.age_s(prefix) > ORPHAN_AGE_S:
                    await self._artifacts.delete_tree(prefix)
            except Unavailable as error:
                self._log.warning("orphan not removed: %s", error, extra={"folder": prefix})
        return None

    async def _ours(self, area: str, ids: re.Pattern[str]) -> list[str]:
        return [name for name in await self._artifacts.children(area) if ids.fullmatch(name)]

    async def sweep(self) -> None:
        for job_id, results in await self._store.sweepable(keep_s=self._keep_s):
            try:
                await self._remove(job_id, results=results)
            except Unavailable as error:
                self._log.warning("files not removed: %s", error, extra={"job": job_id})
                continue
            await self._store.swept(job_id, results=results)

        for file_id in await self._store.sweepable_files():
            try:
                await self._artifacts.delete_tree(file_prefix(file_id))
            except Unavailable as error:
                self._log.warning("file not removed: %s", error, extra={"file": file_id})
                continue
            await self._store.swept_file(file_id)

    async def _remove(self, job_id: str, *, results: bool) -> None:
        if results:
            await self._artifacts.delete_tree(job_prefix(job_id))
        else:
            await self._artifacts.delete_tree(job_prefix(job_id, "work"))
            await self._sweep_abandoned(job_id)

    async def _sweep_abandoned(self, job_id: str) -> None:
        outputs = job_prefix(job_id, "outputs")
        keys = await self._artifacts.keys(outputs)
        named = await self._store.result_uris(job_id)
        living = {_folder(key) for key in keys if self._artifacts.uri(key) in named} | {outputs}
        abandoned = {
            key if _folder(key) in living else _folder(key) for key in keys if self._artifacts.uri(key) not in named
        }
        for tree in abandoned:
            await self._artifacts.delete_tree(tree)


def _folder(key: str) -> str:
    return key.rpartition("/")[0]
