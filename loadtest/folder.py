"""The folder of a run: what was asked, and every finished measurement, written so that a kill loses none.

    manifest.json                 scenario, options, machine, versions; a run is only taken up with the same ones
    points/<rate>hz-seed<seed>/   one measurement:
        trace.parquet             what was to be asked
        journal.jsonl             a line per ended request, written the moment it ended
        jobs.parquet, samples.parquet
        point.json                last, so that whoever finds it finds all

A measurement without point.json is made again from its start; its journal stays beside the new one's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from loadtest.client.base import Device
from loadtest.measure import Measured
from loadtest.parquet import durable, job_dict, job_row, read_jobs, read_samples, write_jobs, write_samples
from loadtest.records import JobRow, Mark

MANIFEST, POINT, JOURNAL = "manifest.json", "point.json", "journal.jsonl"
SAME = ("scenario", "target")  # of the manifest: what makes two runs one


class OtherRun(Exception):
    """The folder holds a run of something else, or none; the message says which."""


class Journal:
    """Appends rows. A line is in the file before `add` returns: a killed process has lost none, a power cut those of
    the last moments.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._file)
        os.close(self._file)

    def add(self, row: JobRow) -> None:
        """One line."""
        os.write(self._file, (json.dumps(job_dict(row), separators=(",", ":")) + "\n").encode())


def journalled(path: Path) -> Iterator[JobRow]:
    """The rows of a journal; a last line that was cut off is none."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield job_row(json.loads(line))


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def begin(cls, path: Path, manifest: Mapping[str, Any]) -> RunFolder:
        """A new run, or the one that lies there if it is the same. OtherRun."""
        folder = cls(path)
        if (path / MANIFEST).exists():
            before = folder.manifest()
            for key in SAME:
                if before.get(key) != json.loads(json.dumps(manifest[key])):
                    raise OtherRun(f"{path} holds a run with another {key}; choose another --out, or delete it.")
            return folder
        path.mkdir(parents=True, exist_ok=True)
        folder._write(path / MANIFEST, manifest)
        return folder

    def manifest(self) -> dict[str, Any]:
        """What was asked, and where. OtherRun when the folder holds no run."""
        try:
            found: dict[str, Any] = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OtherRun(f"{self.path} holds no run: {error}") from error
        return found

    def point(self, rate_hz: float, seed: int) -> Path:
        """Where a measurement lies."""
        return self.path / "points" / f"{rate_hz:g}hz-seed{seed}"

    def start(self, rate_hz: float, seed: int) -> Path:
        """The folder of a measurement that begins; the journal of one that was cut off is put aside."""
        point = self.point(rate_hz, seed)
        point.mkdir(parents=True, exist_ok=True)
        if (point / JOURNAL).exists():
            number = len(list(point.glob("journal-*.jsonl"))) + 1
            (point / JOURNAL).rename(point / f"journal-{number}.jsonl")
        return point

    def finish(self, measured: Measured) -> None:
        """Keeps a whole measurement."""
        point = self.point(measured.rate_hz, measured.seed)
        write_jobs(point / "jobs.parquet", measured.rows)
        write_samples(point / "samples.parquet", measured.samples)
        told = {
            "rate_hz": measured.rate_hz,
            "seed": measured.seed,
            "seconds": measured.seconds,
            "began": measured.began,
            "marks": [asdict(mark) for mark in measured.marks],
            "device": None if measured.device is None else asdict(measured.device),
            "scrape_failures": measured.scrape_failures,
        }
        self._write(point / POINT, told)

    def finished(self, rate_hz: float, seed: int) -> Measured | None:
        """A measurement that was finished before, or None."""
        return self._read(self.point(rate_hz, seed))

    def all(self) -> list[Measured]:
        """Every finished measurement, by rate and seed."""
        found = (self._read(path.parent) for path in self.path.glob(f"points/*/{POINT}"))
        return sorted((point for point in found if point is not None), key=lambda point: (point.rate_hz, point.seed))

    def cut_off(self) -> int:
        """Ended requests of measurements that were cut off: kept, and counted in nothing."""
        journals = [path for path in self.path.glob("points/*/journal*.jsonl")]
        asides = [path for path in journals if path.name != JOURNAL or not (path.parent / POINT).exists()]
        return sum(sum(1 for _ in journalled(path)) for path in asides)

    def _read(self, point: Path) -> Measured | None:
        try:
            told = json.loads((point / POINT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        device, marks = told.pop("device"), told.pop("marks")
        return Measured(
            **told,
            rows=read_jobs(point / "jobs.parquet"),
            samples=read_samples(point / "samples.parquet"),
            marks=[Mark(**mark) for mark in marks],
            device=None if device is None else Device(**device),
        )

    def _write(self, path: Path, data: Mapping[str, Any]) -> None:
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(data, indent=2, default=str), encoding="utf-8")
        durable(partial, path)
