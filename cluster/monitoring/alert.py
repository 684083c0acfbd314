"""What an alert is: its rule, the page that tells what to do, and examples of series that make it fire or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Needs = Literal["", "gpu", "kubernetes"]  # which other exporter's series it reads
Examples = Mapping[str, str]  # series → its values, in promtool's notation, one a minute


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule with everything around it. A `page` wakes somebody, a `ticket` waits for the morning."""

    name: str
    expr: str
    hold: str  # how long it must be true
    severity: Literal["page", "ticket"]
    summary: str
    meaning: str  # what it means for those who wait for videos
    look: tuple[str, ...]  # where the cause shows
    act: tuple[str, ...]  # what to do
    fires: Examples
    quiet: Examples
    at: str = "1h"  # when the examples are judged
    labels: Mapping[str, str] = field(default_factory=dict)  # of the example that fires
    needs: Needs = ""

    @property
    def runbook(self) -> str:
        """Its page, below the chart's folder."""
        return f"runbooks/{self.name}.md"


def page(alert: Alert) -> str:
    """The runbook page, in Markdown."""
    look = "\n".join(f"- {line}" for line in alert.look)
    act = "\n".join(f"{number}. {line}" for number, line in enumerate(alert.act, 1))
    needs = {
        "": "",
        "gpu": "a GPU exporter (or Ray on GPU nodes)",
        "kubernetes": "exporters of the Kubernetes platform",
    }
    told = f"\nIt reads series of {needs[alert.needs]}; without them it never fires.\n" if alert.needs else ""
    return (
        f"# {alert.name}\n\n{alert.summary} Severity: {alert.severity}; after {alert.hold}.\n\n"
        f"## What it means\n\n{alert.meaning}\n{told}\n"
        f"## Where to look\n\n{look}\n\n## What to do\n\n{act}\n\n"
        f"## The rule\n\n```promql\n{alert.expr}\n```\n"
    )
