"""What came to the receiver, beside what should have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from loadtest.chaos.evidence import COMPLETED, JobRecord
from loadtest.chaos.receiver import Receipt

KINDS = {True: "video.completed", False: "video.failed"}


def missing(jobs: list[JobRecord], receipts: list[Receipt]) -> list[JobRecord]:
    """Jobs whose webhook has not been taken yet. Deleted jobs owe nothing."""
    taken = {receipt.video for receipt in receipts if receipt.taken}
    return [record for record in jobs if record.id and not record.deleted and record.id not in taken]


def violations(jobs: list[JobRecord], receipts: list[Receipt]) -> Iterator[str]:
    """Webhooks that did not come, cannot be believed, or tell what is not so."""
    yield from (f"{record.id}: its webhook never came" for record in missing(jobs, receipts))
    known = {record.id: record for record in jobs if record.id}
    deliveries: defaultdict[str, set[str]] = defaultdict(set)
    for receipt in receipts:
        if receipt.flaw is not None:
            yield f"job {receipt.index}: a webhook does not verify: {receipt.flaw}"
            continue
        record = known.get(receipt.video)
        if record is None:
            yield f"{receipt.video}: a webhook of a job that nobody asked for"
            continue
        deliveries[receipt.video].add(receipt.delivery)
        if receipt.tenant != record.tenant or (record.plan and receipt.index != record.plan.index):
            yield f"{receipt.video}: its webhook went to another job's address"
        if not record.deleted and receipt.kind != KINDS[record.status == COMPLETED]:
            yield f"{receipt.video}: its webhook says {receipt.kind}, it is {record.status}"
    for video, ids in deliveries.items():
        if len(ids) > 1:
            yield f"{video}: {len(ids)} different deliveries of one webhook"
