"""The registry: names, units and bounded labels."""

from __future__ import annotations

import re

import pytest

from cluster.config import Config, profile, profiles
from cluster.errors import OutOfMemory
from cluster.monitoring.families import FAILURES, FAMILIES, LABELS, Domain, Family

UNITS = {"seconds", "bytes", ""}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_a_family_keeps_the_rules_of_names(family: Family) -> None:
    assert re.fullmatch(r"skyreels(_[a-z]+)+", family.name)
    assert family.help.endswith(".")
    assert family.unit in UNITS
    assert family.name.endswith("_total") == (family.type == "counter")
    stem = family.name.removesuffix("_total")
    assert not family.unit or stem.endswith(family.unit) or f"_{family.unit}" in stem
    assert bool(family.buckets) == (family.type == "histogram")
    assert list(family.buckets) == sorted(family.buckets)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_every_label_has_a_domain_and_few_values(family: Family) -> None:
    assert set(family.labels) <= set(LABELS)
    assert not set(family.labels) & {"application", "deployment", "replica"}  # Ray's own


def test_no_label_is_free_text() -> None:
    with pytest.raises(ValueError, match="either a closed set or open"):
        Domain()
    for name, domain in LABELS.items():
        assert domain.size <= 70, name


def test_domains_hold_what_the_system_says() -> None:
    assert OutOfMemory.code in FAILURES
    for config in map(profile, profiles()):
        stages, models, families = _said(config)
        assert stages <= (LABELS["stage"].values or set())
        assert models <= (LABELS["model"].values or set())
        assert families <= (LABELS["resolution"].values or set())


def _said(config: Config) -> tuple[set[str], set[str], set[str]]:
    models = config.registry.models
    families = {family for model in models.values() for family in model.limits.resolutions}
    return {stage for pool in config.pools for stage in pool.stages}, set(models), families
