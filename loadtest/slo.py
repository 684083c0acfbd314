"""What a rate's measurements say: attainment and goodput, latencies and their parts, refusals and failures apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtest.measure import Measured
from loadtest.mixes import Scenario
from loadtest.records import JobRow, Outcome, Span
from loadtest.statistics import Estimate, mean, quantiles

LATE_S = 0.1  # a generator that sends later than this at p99 measures itself


_NAMES = {"closed": "as fast as it answers", "replay": "as recorded"}


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of time: its quantiles over all seeds, and how many samples they are of."""

    name: str
    samples: int
    quantiles: dict[float, Estimate | None]


@dataclass(frozen=True, slots=True)
class Summary:
    """One rate, all its seeds. Requests of the warm-up are in nothing here; planned cancels are in no share."""

    name: str  # of the rate, in words
    rate_hz: float  # as asked for; 0 where the arrivals have none of their own
    offered_hz: float  # as sent
    seeds: int
    outcomes: dict[Outcome, int]
    refused_without_advice: int  # rejected, and not told when to come back
    attainment: Estimate  # share of the requests that completed in time; refused and failed ones did not
    goodput_hz: Estimate  # completed in time, per second
    throughput_hz: Estimate  # completed, per second
    parts: tuple[Part, ...]
    by_class: dict[str, float]  # attainment
    video_s: float  # seconds of finished video
    device_per_video: float | None  # device-seconds of everything that was done per second of finished video
    wasted_s: float | None  # device-seconds whose result was thrown away
    late_p99_s: float  # how late requests left
    scrape_failures: int

    @property
    def counted(self) -> int:
        """Requests that could be in time."""
        return sum(self.outcomes.values()) - self.outcomes[Outcome.CANCELLED]

    def part(self, name: str) -> Part | None:
        """A kind of time by its name."""
        return next((part for part in self.parts if part.name == name), None)


def counted(measured: Measured, scenario: Scenario) -> list[JobRow]:
    """The rows behind the warm-up, in the order in which they were due."""
    return sorted((row for row in measured.rows if row.intended_s >= scenario.warmup_s), key=lambda r: r.intended_s)


def summarise(points: Sequence[Measured], scenario: Scenario) -> Summary:
    """All measurements of one rate. ValueError without any."""
    if not points:
        raise ValueError("a summary needs a measurement")
    by_seed = [counted(point, scenario) for point in points]
    rows = [row for seed in by_seed for row in seed]
    asked = [[row for row in seed if row.outcome is not Outcome.CANCELLED] for seed in by_seed]
    outcomes = Counter(row.outcome for row in rows)
    window_s = scenario.window_s
    done = [[row for row in seed if row.outcome is Outcome.COMPLETED] for seed in by_seed]
    video_s = sum(row.seconds * row.results for point in points for row in point.rows if row.outcome == "completed")
    devices = [point.device for point in points if point.device is not None]
    spent_s = sum(device.useful_s + device.wasted_s for device in devices)
    late = sorted(row.sent_s - row.intended_s for row in rows)
    zero = Estimate(0.0)
    return Summary(
        name=_NAMES.get(scenario.arrivals.kind, f"{points[0].rate_hz:g} per second"),
        rate_hz=0.0 if scenario.arrivals.kind in _NAMES else points[0].rate_hz,
        offered_hz=len(rows) / window_s / len(points),
        seeds=len(points),
        outcomes={outcome: outcomes.get(outcome, 0) for outcome in Outcome},
        refused_without_advice=sum(row.outcome is Outcome.REJECTED and row.retry_after is False for row in rows),
        attainment=mean([[float(row.met) for row in seed] for seed in asked]) or zero,
        goodput_hz=mean([[sum(row.met for row in seed) / window_s] for seed in by_seed]) or zero,
        throughput_hz=mean([[len(seed) / window_s] for seed in done]) or zero,
        parts=tuple(_parts(done)),
        by_class={name: _share([row for seed in asked for row in seed if row.slo == name]) for name in scenario.slo},
        video_s=video_s,
        device_per_video=spent_s / video_s if len(devices) == len(points) and video_s else None,
        wasted_s=sum(device.wasted_s for device in devices) if len(devices) == len(points) else None,
        late_p99_s=late[min(len(late) - 1, int(0.99 * len(late)))] if late else 0.0,
        scrape_failures=sum(point.scrape_failures for point in points),
    )


def _share(rows: Sequence[JobRow]) -> float:
    return sum(row.met for row in rows) / len(rows) if rows else 0.0


def _parts(done: Sequence[Sequence[JobRow]]) -> list[Part]:
    kinds: dict[str, Callable[[JobRow], float | None]] = {
        "end to end": lambda row: row.latency_s,
        "queue wait": queue_wait_s,
        "service": lambda row: None if row.server_s is None or row.queue_s is None else row.server_s - row.queue_s,
        "first preview": lambda row: None if row.preview_s is None else row.preview_s - row.intended_s,
        "residual": residual_s,
    }
    stages = sorted({stage for seed in done for row in seed for stage in row.stage_s})
    found = [_part(name, done, of) for name, of in kinds.items()]
    found += [_part(f"stage {stage}", done, _worked(stage)) for stage in stages]
    return [part for part in found if part.samples]


def _worked(stage: str) -> Callable[[JobRow], float | None]:
    return lambda row: row.stage_s.get(stage)


def _part(name: str, done: Sequence[Sequence[JobRow]], of: Callable[[JobRow], float | None]) -> Part:
    by_seed = [[value for row in seed if (value := of(row)) is not None] for seed in done]
    return Part(name, sum(map(len, by_seed)), quantiles(by_seed))


def queue_wait_s(row: JobRow) -> float | None:
    """From the intended instant until a worker had it: by the server's word behind its acceptance, else as seen."""
    if row.queue_s is not None and row.accepted_s is not None:
        return row.accepted_s - row.intended_s + row.queue_s
    return None if row.began_s is None else row.began_s - row.intended_s


def residual_s(row: JobRow) -> float | None:
    """What is left of the end-to-end time without the times in which a stage was ready or worked."""
    if row.latency_s is None or not row.spans:
        return None
    return row.latency_s - covered_s(row.spans)


def covered_s(spans: Sequence[Span]) -> float:
    """The length of the union of the spans, each from ready to its end."""
    total, reached = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.ready_s):
        total += max(0.0, span.ended_s - max(reached, span.ready_s))
        reached = max(reached, span.ended_s)
    return total
