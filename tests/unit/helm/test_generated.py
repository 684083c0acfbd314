"""One source: what the chart holds of the configuration is what the code makes, and Serve takes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.serve._private.build_app import build_app
from ray.serve.schema import ServeDeploySchema
from typer.testing import CliRunner

from cluster import config as configuration
from cluster.chart.files import chart_profiles, generated
from cluster.chart.values import helm_values, values_schema
from cluster.config import Config, profile
from cluster.errors import ConfigError
from cluster.serve_config import serve_config
from deployments.app import build
from deployments.cli.main import app
from tests.unit.helm.engine import CHART, chart, rayservice, values_of

PROFILES = {"dev-cpu", "single-node-8xh200", "disagg-h200-l40s", "multi-host-usp16", "spot-encode"}


def printed(profile: str, *changes: dict[str, Any]) -> dict[str, Any]:
    """The Serve config in the RayService."""
    text = rayservice(values_of(profile, *changes))["spec"]["serveConfigV2"]
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_the_profiles_of_the_chart() -> None:
    assert set(chart_profiles()) == PROFILES


@pytest.mark.parametrize("name", generated())
def test_a_generated_file_is_as_the_code_makes_it(name: str) -> None:
    assert (CHART / name).read_text(encoding="utf-8") == generated()[name], "run `make chart`"


def test_nothing_else_lies_among_the_generated_profiles() -> None:
    assert {path.stem for path in (CHART / "profiles").iterdir()} == PROFILES


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(values_schema())
    assert chart().schema == values_schema()


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_the_chart_prints_the_serve_config_unchanged(name: str) -> None:
    assert printed(name) == json.loads(json.dumps(serve_config(profile(name))))


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_serve_takes_what_the_chart_prints(name: str) -> None:
    schema = ServeDeploySchema.model_validate(printed(name))
    (application,) = schema.applications
    settings = Config.model_validate(application.args)
    assert [(pool.name, pool.stages, pool.ranks) for pool in settings.pools] == [
        (pool.name, pool.stages, pool.ranks) for pool in profile(name).pools
    ]
    named = {deployment.name for deployment in application.deployments}
    built = build_app(build(settings), name=application.name, make_deployment_handle=lambda *_: None)
    assert named == {deployment.name for deployment in built.deployments}


def test_a_site_changes_sections_of_the_arguments_and_nothing_else() -> None:
    url, root = "postgresql+asyncpg://db.example/video", "s3://videos/eu"
    site = {"store": {"url": url}, "artifacts": {"root": root}}
    plain = printed("disagg-h200-l40s")
    changed = printed("disagg-h200-l40s", {"site": site})
    args = changed["applications"][0]["args"]
    policy = changed["applications"][0]["autoscaling_policy"]["policy_kwargs"]
    assert policy["store_url"] == url
    policy["store_url"] = plain["applications"][0]["autoscaling_policy"]["policy_kwargs"]["store_url"]
    assert args["store"]["url"] == url
    assert args["artifacts"] == plain["applications"][0]["args"]["artifacts"] | {"root": root}
    args["store"], args["artifacts"] = (plain["applications"][0]["args"][key] for key in ("store", "artifacts"))
    assert changed == plain


def test_worker_groups_are_no_argument_of_the_application() -> None:
    """Else new bounds of a group would restart every replica."""
    (application,) = serve_config(profile("disagg-h200-l40s"))["applications"]
    assert "kubernetes" not in application["args"]


def test_the_command_prints_the_values() -> None:
    done = CliRunner().invoke(app, ["helm-values", "--profile", "spot-encode"])
    assert done.exit_code == 0
    assert yaml.safe_load(done.stdout) == values_of("spot-encode")


def test_the_command_reads_a_file(tmp_path: Path) -> None:
    source = Path(configuration.__file__).parent / "profiles/dev-cpu.yaml"
    changed = tmp_path / "mine.yaml"
    changed.write_text(source.read_text().replace("memory: 12Gi", "memory: 20Gi"))
    done = CliRunner().invoke(app, ["helm-values", "--config", str(changed)])
    assert yaml.safe_load(done.stdout)["pools"]["all"]["memory"] == "20Gi"


def test_a_configuration_without_groups_is_not_for_the_chart() -> None:
    with pytest.raises(ConfigError, match="profile laptop names no worker groups"):
        helm_values(profile("laptop"))


def test_a_label_without_a_group_is_told() -> None:
    settings = profile("dev-cpu")
    lost = settings.api.model_copy(update={"labels": {"skyreels.ai/pool": "edge"}})
    with pytest.raises(ConfigError, match=r"Api asks for skyreels\.ai/pool=edge, .* it has all"):
        helm_values(settings.model_copy(update={"api": lost}))


def test_groups_are_as_small_and_as_large_as_what_runs_in_them() -> None:
    """A group that is larger than its deployments at rest wastes nodes; that it is large enough is a guard's work."""
    for name in PROFILES:
        settings = profile(name)
        for pool in settings.pools:
            group = settings.kubernetes.pools[pool.labels["skyreels.ai/pool"]]
            assert group.min == min(pool.least, 1)
            alone = sum(one.labels == pool.labels for one in settings.pools) == 1
            assert not alone or group.max == pool.most


def test_groups_that_compute_get_weights_and_groups_that_speak_to_others_the_internet() -> None:
    pools = values_of("spot-encode")["pools"]
    assert {name for name, group in pools.items() if group["internet"]} == {"edge"}
    assert {name for name, group in pools.items() if group["models"]} == {"encode", "dit", "decode"}
    assert [group["order"] for group in pools.values()] == [10, 20, 30, 40]


def test_the_defaults_of_values_yaml_are_those_of_the_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(values, values_schema())
    assert values["drain"]["seconds"] == 900
    assert values["upgrade"]["deletionDelaySeconds"] == 1800
    assert values["networkPolicy"]["enabled"] is values["ray"]["authToken"]["enabled"] is True


README = (CHART / "README.md").read_text(encoding="utf-8")


def test_the_readme_tells_of_every_profile() -> None:
    assert set(re.findall(r"^\| `([\w-]+)` \|", README.partition("## Upgrades")[0], re.MULTILINE)) == PROFILES


@pytest.mark.parametrize("name", sorted(PROFILES - {"dev-cpu"}))
def test_the_readmes_site_fits_every_profile(name: str) -> None:
    (site,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    args = printed(name, yaml.safe_load(site))["applications"][0]["args"]
    assert args["artifacts"]["root"] == "s3://videos"
