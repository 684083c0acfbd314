"""The files made of the registry: rules and their tests, runbooks, dashboards. Each is a function of the code alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from cluster.monitoring import alerts_fleet, alerts_jobs
from cluster.monitoring.alert import Alert, page
from cluster.monitoring.panels import DASHBOARDS, Dashboard, Panel
from cluster.monitoring.rules import GROUPS

INTERVAL_S = 30
WIDTH, HEIGHT, COLUMNS = 12, 8, 24  # of Grafana's grid
ALERTS: Mapping[str, Sequence[Alert]] = {"skyreels-jobs": alerts_jobs.ALERTS, "skyreels-fleet": alerts_fleet.ALERTS}
NEEDS = {"gpu": "Needs GPU nodes and their exporter.", "kubernetes": "Needs exporters of the Kubernetes platform."}
MADE = "# Made by `python -m cluster.monitoring`; do not edit.\n"


def files() -> dict[str, str]:
    """Every file by its path below the chart's folder."""
    alerts = [alert for group in ALERTS.values() for alert in group]
    made = {"rules/recording.yaml": _yaml(recording()), "rules/alerts.yaml": _yaml(alerting())}
    made |= {f"rules/tests/{alert.name}.test.yaml": _yaml(unit_test(alert)) for alert in alerts}
    made |= {alert.runbook: page(alert) for alert in alerts}
    made |= {f"dashboards/{one.name}.json": json.dumps(grafana(one), indent=1) + "\n" for one in DASHBOARDS}
    return made


def recording() -> dict[str, Any]:
    """Recording rules in Prometheus' shape, which is a PrometheusRule's `spec` too."""
    return {
        "groups": [
            {
                "name": name,
                "interval": f"{INTERVAL_S}s",
                "rules": [{"record": rule.record, "expr": rule.expr} for rule in rules],
            }
            for name, rules in GROUPS.items()
        ]
    }


def alerting() -> dict[str, Any]:
    """Alerting rules in the same shape."""
    return {
        "groups": [
            {"name": name, "interval": f"{INTERVAL_S}s", "rules": [_rule(alert) for alert in alerts]}
            for name, alerts in ALERTS.items()
        ]
    }


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.hold,
        "labels": {"severity": alert.severity},
        "annotations": _annotations(alert),
    }


def _annotations(alert: Alert) -> dict[str, str]:
    return {"summary": alert.summary, "description": alert.meaning, "runbook_url": alert.runbook}


def unit_test(alert: Alert) -> dict[str, Any]:
    """Promtool's test of one alert: it fires on its example, and not on the other."""
    told = {"exp_labels": {**alert.labels, "severity": alert.severity}, "exp_annotations": _annotations(alert)}

    def judged(examples: Mapping[str, str], expected: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in examples.items()],
            "alert_rule_test": [{"eval_time": alert.at, "alertname": alert.name, "exp_alerts": expected}],
        }

    return {
        "rule_files": ["../recording.yaml", "../alerts.yaml"],
        "evaluation_interval": "5m",
        "tests": [judged(alert.fires, [told]), judged(alert.quiet, [])],
    }


def grafana(dashboard: Dashboard) -> dict[str, Any]:
    """A dashboard in Grafana's JSON; the data source is chosen on the page."""
    return {
        "uid": dashboard.name,
        "title": dashboard.title,
        "tags": ["skyreels"],
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}]
        },
        "panels": [_panel(panel, index) for index, panel in enumerate(dashboard.panels)],
    }


def _panel(panel: Panel, index: int) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    per_row = COLUMNS // WIDTH
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": " ".join(filter(None, (panel.help, NEEDS.get(panel.needs, "")))),
        "datasource": source,
        "gridPos": {"x": index % per_row * WIDTH, "y": index // per_row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {"stacking": {"mode": "normal" if panel.stacked else "none"}},
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": source, "expr": query.expr, "legendFormat": query.legend}
            for number, query in enumerate(panel.queries)
        ],
    }


def _yaml(data: Mapping[str, Any]) -> str:
    return MADE + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
