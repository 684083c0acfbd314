"""What tenants are said to have used and owe, beside what was seen: nothing twice, nothing forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from loadtest.chaos.evidence import JobRecord

Counts = Mapping[str, int]  # "videos", "video_s", "micro_usd" and, by stage, finished calls
SIZE = "64P"  # what the jobs ask for
MICRO = 1_000_000


def price(models: Mapping[str, Any]) -> Decimal | None:
    """What a second of the jobs' videos costs, from `GET /v1/models`: of the first price that fits."""
    for entry in models["data"][0]["prices"]:
        if entry["resolution"] in {None, SIZE} and entry["workflow"] in {None, "generate"}:
            return Decimal(entry["per_second_usd"])
    return None


def counted(report: Mapping[str, Any]) -> Counter[str]:
    """The numbers of `GET /v1/usage` that count things once each."""
    stages = {stage["stage"]: stage["calls"] for stage in report["stages"]}
    charged = int(Decimal(report["charged_usd"]) * MICRO)
    return Counter({"videos": report["videos"], "video_s": report["video_s"], "micro_usd": charged, **stages})


def expected(
    jobs: list[JobRecord], tenant: int, per_second_usd: Decimal | None = None
) -> tuple[Counter[str], Counter[str]]:
    """The least and the most that a tenant's jobs may have used: of deleted ones nobody knows how far they came."""
    least: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for record in jobs:
        if record.tenant != tenant or not record.last:
            continue
        seconds, stages, results = int(record.last["seconds"]), record.last["stages"], record.last["results"]
        whole = Counter(stage["stage"] for stage in stages)
        micro_usd = int((per_second_usd or 0) * seconds * MICRO)
        whole.update(videos=len(results), video_s=seconds * len(results), micro_usd=micro_usd * len(results))
        if record.deleted:
            most += whole
            continue
        published = sum(result["url"] is not None for result in results)
        seen = Counter(stage["stage"] for stage in stages if stage["state"] == "done")
        seen.update(videos=published, video_s=seconds * published, micro_usd=micro_usd * published)
        least += seen
        most += seen
    return least, most


def violations(
    jobs: list[JobRecord], used: Mapping[int, Counts], per_second_usd: Decimal | None = None
) -> Iterator[str]:
    """Where the ledger of a tenant, or a job, says more or less than it can have used or cost."""
    for record in jobs:
        told = record.last.get("cost_usd")
        if per_second_usd is None or told is None or record.deleted:
            continue
        published = sum(result["url"] is not None for result in record.last["results"])
        cost_usd = per_second_usd * int(record.last["seconds"]) * published
        if Decimal(told) != cost_usd:
            yield f"{record.id}: says that it costs {told} USD, its {published} results cost {cost_usd}"
    for tenant, counts in used.items():
        least, most = expected(jobs, tenant, per_second_usd)
        for name in sorted(most | Counter(counts)):
            if not least[name] <= counts.get(name, 0) <= most[name]:
                yield (
                    f"tenant {tenant}: the ledger has {counts.get(name, 0)} {name}, "
                    f"its jobs had {least[name]} to {most[name]}"
                )
