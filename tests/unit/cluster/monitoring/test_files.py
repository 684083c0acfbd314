"""The written rules, runbooks and dashboards: equal to the code, accepted by promtool, true to their examples."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.monitoring.__main__ import FOLDERS, main
from cluster.monitoring.alert import Alert
from cluster.monitoring.families import FAMILIES
from cluster.monitoring.panels import DASHBOARDS, Panel
from cluster.monitoring.rules import GROUPS, Recording
from cluster.monitoring.write import ALERTS, files

CHART = Path(__file__).parents[4] / "helm/skyreels"
ALL = [alert for group in ALERTS.values() for alert in group]
RECORDED = {rule.record for rules in GROUPS.values() for rule in rules}
PANELS = [panel for dashboard in DASHBOARDS for panel in dashboard.panels]
# Values of exporters that are not on every machine, as they look where they are.
ELSEWHERE = {
    'ray_node_gpus_utilization{ip="n1", GpuIndex="0"}': "80+0x60",
    'ray_node_gram_used{ip="n1", GpuIndex="0"}': "70000+0x60",
    'ray_node_gram_available{ip="n1", GpuIndex="0"}': "70000+0x60",
    'DCGM_FI_DEV_POWER_USAGE{Hostname="n1", gpu="0"}': "650+0x60",
    'DCGM_FI_DEV_GPU_TEMP{Hostname="n1", gpu="0"}': "61+0x60",
    'DCGM_FI_DEV_XID_ERRORS{Hostname="n1", gpu="0"}': "0+0x60",
    'DCGM_FI_DEV_ROW_REMAP_FAILURE{Hostname="n1", gpu="0"}': "0+0x60",
    'kuberay_service_condition_ready{name="skyreels", namespace="video", condition="true"}': "1+0x60",
    'ray_cluster_pending_nodes{node_type="dit"}': "0+0x60",
    'kube_daemonset_status_number_unavailable{daemonset="skyreels-model-cache"}': "0+0x60",
}


def promtool(*args: str | Path, cwd: Path = CHART) -> str:
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    done = subprocess.run([binary, *map(str, args)], capture_output=True, text=True, check=False, cwd=cwd)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_the_files_are_what_the_code_says(tmp_path: Path) -> None:
    made = files()
    there = {str(path.relative_to(CHART)) for name in FOLDERS for path in (CHART / name).rglob("*") if path.is_file()}
    assert there == set(made)
    for name, text in made.items():
        assert (CHART / name).read_text(encoding="utf-8") == text, f"{name}: run python -m cluster.monitoring"
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/old.yaml").touch()
    (tmp_path / "values.yaml").touch()
    main(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*made, "values.yaml"}


def test_promtool_accepts_the_rules() -> None:
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", "rules/recording.yaml", "rules/alerts.yaml")
    assert f"{len(ALL)} rules found" in said


def test_every_alert_fires_on_its_example_and_not_on_the_other() -> None:
    said = promtool("test", "rules", *sorted((CHART / "rules/tests").glob("*.yaml")))
    assert said.count("SUCCESS") == len(ALL)


def test_an_alert_that_does_not_fire_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(CHART / "rules", tmp_path / "rules")
    path = tmp_path / "rules/tests/SkyreelsNobodyLeads.test.yaml"
    test = yaml.safe_load(path.read_text())
    test["tests"][0]["input_series"][0]["values"] = "1+0x60"
    path.write_text(yaml.safe_dump(test))
    with pytest.raises(AssertionError, match="SkyreelsNobodyLeads"):
        promtool("test", "rules", path)


def names_in(expr: str) -> set[str]:
    """Our families that an expression reads."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"ray_(skyreels_\w+)", expr)}


@pytest.mark.parametrize("alert", ALL, ids=lambda alert: alert.name)
def test_an_alert_reads_what_exists_and_has_its_page(alert: Alert) -> None:
    assert names_in(alert.expr) <= set(FAMILIES)
    assert set(re.findall(r"skyreels:[\w:]+", alert.expr)) <= RECORDED
    assert set().union(*map(names_in, (*alert.fires, *alert.quiet))) <= set(FAMILIES)
    page = (CHART / alert.runbook).read_text()
    assert alert.expr in page
    assert page.count("## ") == 4


@pytest.mark.parametrize("rule", [rule for rules in GROUPS.values() for rule in rules], ids=lambda rule: rule.record)
def test_a_recording_rule_reads_what_exists(rule: Recording) -> None:
    assert names_in(rule.expr)
    assert names_in(rule.expr) <= set(FAMILIES)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_a_panel_reads_what_exists(panel: Panel) -> None:
    for query in panel.queries:
        assert names_in(query.expr) <= set(FAMILIES)
        assert set(re.findall(r"skyreels:[\w:]+", query.expr)) <= RECORDED


def test_every_family_is_on_a_dashboard() -> None:
    read = " ".join(query.expr for panel in PANELS for query in panel.queries)
    recorded = " ".join(rule.expr for rules in GROUPS.values() for rule in rules if rule.record in read)
    assert names_in(read) | names_in(recorded) == set(FAMILIES)


def test_dashboards_are_grafanas() -> None:
    for dashboard in DASHBOARDS:
        data = json.loads((CHART / f"dashboards/{dashboard.name}.json").read_text())
        assert data["uid"] == dashboard.name
        places = [tuple(panel["gridPos"].values()) for panel in data["panels"]]
        assert len(set(places)) == len({panel["id"] for panel in data["panels"]}) == len(dashboard.panels)
        assert all(panel["datasource"]["uid"] == "${datasource}" for panel in data["panels"])


def test_panels_of_other_exporters_show_their_series(tmp_path: Path) -> None:
    """promtool evaluates each expression as an alert that fires when it returns anything."""
    queries = [query.expr.replace("$__rate_interval", "5m") for p in PANELS if p.needs for query in p.queries]
    assert len(queries) >= 8
    rules = [{"alert": f"Panel{index}", "expr": f"count({expr}) > 0"} for index, expr in enumerate(queries)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))

    def judged(series: dict[str, str], alerts: list[Any]) -> dict[str, Any]:
        checks = [{"eval_time": "30m", "alertname": rule["alert"], "exp_alerts": alerts} for rule in rules]
        given = [{"series": name, "values": values} for name, values in series.items()]
        return {"interval": "1m", "input_series": given, "alert_rule_test": checks}

    tests = [judged(ELSEWHERE, [{"exp_labels": {}}]), judged({"up": "1+0x60"}, [])]
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(whole))
    promtool("test", "rules", "test.yaml", cwd=tmp_path)
