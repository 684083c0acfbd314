"""What takes time while traffic goes on: recovering from a hurt, getting replicas for a backlog."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from loadtest.records import JobRow, Mark, Outcome, Sample

IN_A_ROW = 5  # requests met one after the other that count as recovered


def recovery_s(rows: Sequence[JobRow], mark: Mark, in_a_row: int = IN_A_ROW) -> float | None:
    """From a hurt until requests are in time again: to the intended instant of the first of `in_a_row` that were met
    one after the other, behind the last that was not before them. 0 if none was missed, None if it never came to that.
    """
    later = sorted((row for row in rows if row.outcome is not Outcome.CANCELLED), key=lambda row: row.intended_s)
    later = [row for row in later if (row.ended_s or row.intended_s) >= mark.at_s]
    met = [row.met for row in later]
    if all(met):
        return 0.0
    first_missed = met.index(False)
    for index in range(first_missed, len(later) - in_a_row + 1):
        if all(met[index : index + in_a_row]):
            return max(0.0, later[index].intended_s - mark.at_s)
    return None


def autoscale_lags(samples: Iterable[Sample]) -> dict[str, list[float]]:
    """By stage, how long each backlog waited for slots: from the first scrape with more ready calls than slots to the
    first with more slots than then. Backlogs that vanished before are not in it. It is as fine as scrapes are apart.
    """
    series: defaultdict[str, dict[float, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    names = {"skyreels_stage_ready": "ready", "skyreels_stage_slots": "slots"}
    for sample in samples:
        if sample.name in names and "stage" in sample.labels:
            series[sample.labels["stage"]][sample.at_s][names[sample.name]] = sample.value
    return {stage: lags for stage, points in series.items() if (lags := _lags(points))}


def _lags(points: dict[float, dict[str, float]]) -> list[float]:
    found: list[float] = []
    since: tuple[float, float] | None = None
    for at_s, point in sorted(points.items()):
        ready, slots = point.get("ready", 0.0), point.get("slots", 0.0)
        if since is not None and slots > since[1]:
            found.append(at_s - since[0])
            since = None
        elif since is not None and ready == 0:
            since = None
        elif since is None and ready > slots:
            since = at_s, slots
    return found
