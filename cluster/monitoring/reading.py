"""A metrics endpoint's text as numbers, and what can be said from a few such readings alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from cluster.monitoring.families import RAY

PREFIX = f"{RAY}skyreels_"


@dataclass(frozen=True, slots=True)
class Reading:
    """The samples of our families at one moment. `at_s` is any clock that only goes forward."""

    at_s: float
    samples: Mapping[str, Sequence[tuple[Mapping[str, str], float]]]  # by name, without Ray's prefix

    def by(self, name: str, *labels: str) -> Counter[tuple[str, ...]]:
        """Sums over all series with the same values of these labels."""
        sums: Counter[tuple[str, ...]] = Counter()
        for tags, value in self.samples.get(name, ()):
            sums[tuple(tags.get(label, "") for label in labels)] += value  # type: ignore[assignment] # floats add up too
        return sums

    def largest(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The largest series of each, for what several processes say of the same thing."""
        found: dict[tuple[str, ...], float] = {}
        for tags, value in self.samples.get(name, ()):
            key = tuple(tags.get(label, "") for label in labels)
            found[key] = max(found.get(key, value), value)
        return found


def read(texts: Iterable[str], at_s: float) -> Reading:
    """What the endpoints say together; families of others are left out unread."""
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for text in texts:
        lines = (line for line in text.splitlines() if line.startswith(PREFIX))
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                samples.setdefault(sample.name.removeprefix(RAY), []).append((sample.labels, sample.value))
    return Reading(at_s, samples)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage now. `queue_s` and `call_s` are means over the window, None when nothing happened in it."""

    name: str
    slots: int
    busy: int
    ready: int
    oldest_s: float
    queue_s: float | None
    call_s: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """One group of ranks. `busy` is the share of the window that it spent in steps."""

    name: str
    residents: int
    places: int
    busy: float | None
    unsaved_s: float


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it. Rates are per second over `window_s`."""

    window_s: float
    jobs: Mapping[str, int]
    stages: Sequence[Stage]
    groups: Sequence[Group]
    steps_per_s: Mapping[tuple[str, str, str], float]  # by model, resolution, degree
    ended_per_s: Mapping[str, float]  # jobs, by state
    troubles: Mapping[str, float]  # what was counted in the window of lost, failed and repeated work


def overview(before: Reading, now: Reading) -> Overview:
    """What two readings say; `before` may be `now` itself, then nothing has a rate."""
    window_s = now.at_s - before.at_s

    def grown(name: str, *labels: str) -> dict[tuple[str, ...], float]:
        was = before.by(name, *labels)
        return {key: max(value - was[key], 0.0) for key, value in now.by(name, *labels).items()}

    def means(family: str, label: str) -> dict[str, float]:
        counts, sums = grown(f"{family}_count", label), grown(f"{family}_sum", label)
        return {key[0]: sums[key] / count for key, count in counts.items() if count > 0}

    def level(name: str, label: str) -> dict[str, float]:
        return {key[0]: value for key, value in now.largest(name, label).items()}

    slots, busy, ready, oldest = (
        level(f"skyreels_{name}", "stage")
        for name in ("stage_slots", "stage_busy", "stage_ready", "queue_oldest_seconds")
    )
    waits, calls = means("skyreels_queue_seconds", "stage"), means("skyreels_stage_seconds", "stage")
    groups = now.by("skyreels_group_residents", "deployment", "replica")
    places = now.by("skyreels_group_places", "deployment", "replica")
    worked = grown("skyreels_group_busy_seconds_total", "deployment", "replica")
    unsaved = now.largest("skyreels_snapshot_age_seconds", "deployment", "replica")
    labels = ("model", "resolution", "degree")
    steps = grown("skyreels_step_seconds_count", *labels)
    ended = grown("skyreels_jobs_total", "state")
    troubles = {
        name: sum(grown(f"skyreels_{name}_total").values())
        for name in ("lost", "stage_failures", "retries", "group_rebuilds", "store_outages", "wasted_seconds")
    }
    return Overview(
        window_s,
        jobs={state: int(count) for state, count in level("skyreels_jobs", "state").items()},
        stages=[
            Stage(
                name,
                int(slots.get(name, 0)),
                int(busy.get(name, 0)),
                int(ready.get(name, 0)),
                oldest.get(name, 0.0),
                waits.get(name),
                calls.get(name),
            )
            for name in sorted({*slots, *busy, *ready})  # nobody has slots for a stage whose pool is at nothing
        ],
        groups=[
            Group(
                " ".join(key),
                int(count),
                int(places[key]),
                worked.get(key, 0.0) / window_s if window_s else None,
                unsaved.get(key, 0.0),
            )
            for key, count in sorted(groups.items())
        ],
        steps_per_s={key: count / window_s for key, count in steps.items()} if window_s else {},  # type: ignore[misc] # three labels
        ended_per_s={key[0]: count / window_s for key, count in ended.items()} if window_s else {},
        troubles={name: count for name, count in troubles.items() if count > 0},
    )
