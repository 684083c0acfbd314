"""A run as one HTML file: nothing is fetched to show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from loadtest.folder import RunFolder
from loadtest.parquet import durable
from loadtest.report import figures
from loadtest.report.text import (
    HURTS,
    LAGS,
    PARTS,
    RATES,
    Results,
    facts,
    hurt_rows,
    lag_rows,
    markdown,
    notes,
    part_rows,
    rate_row,
    results,
)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px }
th, td { border: 1px solid #ddd; padding: 3px 8px; text-align: right }
th:first-child, td:first-child { text-align: left }
svg { max-width: 100%; height: auto; display: block; margin: .5em 0 1.2em }
code { background: #f4f4f4 }
"""


def html(found: Results) -> str:
    """The page."""
    scenario = found.scenario
    shown = max(found.rates, key=lambda rate: (rate[0].rate_hz <= (found.knee_hz or 0), rate[0].rate_hz))
    parts = [f"<h1>Load: {escape(scenario.name)}</h1><p>{escape(scenario.about)}.</p>", _list(facts(found))]
    if len(found.rates) > 1:
        parts += [
            "<h2>Rate and what is in time</h2>",
            figures.attainment(found.summaries, scenario),
            "<h2>Rate and goodput</h2>",
            figures.goodput(found.summaries),
        ]
    parts += [_table(RATES, map(rate_row, found.summaries)), _list([f"- {note}" for note in notes(found)])]
    parts += ["<h2>Latencies</h2>", figures.distributions(found.rates, scenario)]
    for summary in found.summaries:
        parts += [f"<h3>{summary.name}, seconds</h3>", _table(PARTS, part_rows(summary))]
    jobs = figures.samples([row for point in shown[1] for row in point.rows])
    if jobs:
        parts.append(f"<h2>Jobs at {shown[0].name}</h2>")
        for row in jobs:
            model, seconds = escape(row.model), f"{row.seconds:g} s"
            parts.append(f"<p>{model}, {seconds}, {row.latency_s:.2f} s from due to done</p>{figures.gantt(row)}")
    hurt = [(summary, point) for summary, points in found.rates for point in points if point.marks]
    last, points = found.rates[-1]
    for summary, point in hurt or [(last, points[0])]:
        parts.append(f"<h2>Over time: {summary.name}, seed {point.seed}</h2>{figures.timeline(point)}")
        parts.append(figures.queues(point) or "")
    if rows := list(hurt_rows(found)):
        parts += ["<h2>What was hurt</h2>", _table(HURTS, rows)]
    if rows := list(lag_rows(found)):
        parts += ["<h2>Scaling</h2>", _table(LAGS, rows)]
    title = escape(f"Load: {scenario.name}")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def write(folder: RunFolder) -> tuple[Path, Path]:
    """`report.html` and `report.md` beside the measurements. OtherRun; ValueError when nothing was finished."""
    found = results(folder)
    pages = {folder.path / "report.html": html(found), folder.path / "report.md": markdown(found) + "\n"}
    for path, text in pages.items():
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(text, encoding="utf-8")
        durable(partial, path)
    first, second = pages
    return first, second


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + f"</tr>{body}</table>"


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line.removeprefix('- '))}</li>" for line in lines) + "</ul>"
