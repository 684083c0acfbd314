"""The registry's families as instruments of `ray.serve.metrics`, with the values of labels kept in their domains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

from ray.serve import metrics

from cluster.monitoring.families import FAMILIES, LABELS, OTHER, Family, Type

_NONE: Mapping[str, str] = {}


class _Bounded:
    """What all instruments share: the family, and which values its labels may have."""

    def __init__(self, name: str, kind: Type) -> None:
        self.family: Family = FAMILIES[name]
        if self.family.type != kind:
            raise TypeError(f"{name} is a {self.family.type}, not a {kind}")
        self._seen: dict[str, set[str]] = {label: set() for label in self.family.labels}

    def bound(self, tags: Mapping[str, str]) -> dict[str, str]:
        """The same labels with values of their domains."""
        return {label: self._allowed(label, value) for label, value in tags.items()}

    def _allowed(self, label: str, value: str) -> str:
        domain, seen = LABELS[label], self._seen[label]
        if domain.values is not None:
            return value if value in domain.values else OTHER
        if value == OTHER:
            return OTHER
        if value in seen or len(seen) < domain.most:
            seen.add(value)
            return value
        return OTHER


class Counter(_Bounded):
    """Only grows."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "counter")
        self._metric = metrics.Counter(name, self.family.help, tag_keys=self.family.labels)

    def inc(self, value: float = 1.0, tags: Mapping[str, str] = _NONE) -> None:
        """Adds to the series of these tags; what is not above zero adds nothing."""
        if value > 0:
            self._metric.inc(value, tags=self.bound(tags))

    def begin(self, **values: Iterable[str]) -> None:
        """The series of every combination of these values begin at zero.

        One that appears with its first event hides it: to Prometheus a rate is what a series has grown by.
        """
        for one in product(*values.values()):
            # Ray's own `inc` refuses zero.
            self._metric._record(0.0, tags=self.bound(dict(zip(values, one, strict=True))))


class Gauge(_Bounded):
    """Keeps the last value for as long as it is set again: Ray forgets it after twenty seconds."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "gauge")
        self._metric = metrics.Gauge(name, self.family.help, tag_keys=self.family.labels)

    def set(self, value: float, tags: Mapping[str, str] = _NONE) -> None:
        """The present value of the series of these tags."""
        self._metric.set(value, tags=self.bound(tags))


class Histogram(_Bounded):
    """Counts values by size."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "histogram")
        buckets = list(self.family.buckets)
        self._metric = metrics.Histogram(name, self.family.help, boundaries=buckets, tag_keys=self.family.labels)

    def observe(self, value: float, tags: Mapping[str, str] = _NONE) -> None:
        """One more value of the series of these tags."""
        self._metric.observe(value, tags=self.bound(tags))


class Levels:
    """Gauges of one family whose label values come and go: those that are gone fall to zero."""

    def __init__(self, name: str) -> None:
        self._gauge = Gauge(name)
        self._set: set[tuple[str, ...]] = set()

    def set(self, values: Mapping[tuple[str, ...], float]) -> None:
        """All that there is now, by the values of the family's labels in their order; what is outside of a domain is
        one sum.
        """
        sums = dict.fromkeys(self._set, 0.0)
        for key, value in values.items():
            bounded = tuple(self._gauge.bound(dict(zip(self._gauge.family.labels, key, strict=True))).values())
            sums[bounded] = sums.get(bounded, 0.0) + value
        for key, value in sums.items():
            self._gauge.set(value, tags=dict(zip(self._gauge.family.labels, key, strict=True)))
        self._set = set(sums)
