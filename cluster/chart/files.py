"""The files of the chart that are made from code."""

from __future__ import annotations

import json
from typing import Any

import yaml

from cluster import config as configuration
from cluster.chart.printing import default_values
from cluster.chart.values import helm_values, values_schema


class _Dumper(yaml.SafeDumper):
    """Repeats equal parts instead of naming them: people read and edit these files."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def as_yaml(values: dict[str, Any]) -> str:
    """Values as a file for `helm -f`."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=118)


def chart_profiles() -> tuple[str, ...]:
    """The shipped profiles that name worker groups."""
    return tuple(name for name in configuration.profiles() if configuration.profile(name).kubernetes.pools)


def generated() -> dict[str, str]:
    """Text by path below the chart."""
    files = {
        "values.yaml": default_values(),
        "values.schema.json": json.dumps(values_schema(), indent=1, sort_keys=True) + "\n",
    }
    for name in chart_profiles():
        head = f"# Profile {name}. Made by `make chart` from cluster/profiles/{name}.yaml; change it there.\n"
        files[f"profiles/{name}.yaml"] = head + as_yaml(helm_values(configuration.profile(name)))
    return files
