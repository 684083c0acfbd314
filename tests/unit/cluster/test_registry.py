from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from cluster.errors import UnknownModel
from cluster.plans import BUCKETS, PORTRAITS
from cluster.registry import KNOWN, MODELS, PRICES, UPCOMING, Known, Model, PriceTable, Registry, table, tiny


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_a_row_is_consistent(model: Model) -> None:
    for row in (model, tiny(model)):
        limits = row.limits
        assert limits.default_resolution in limits.resolutions
        assert set(limits.resolutions) <= (PORTRAITS if limits.portrait else BUCKETS).keys()
        assert limits.min_duration_s <= limits.default_duration_s <= limits.max_duration_s
        assert limits.min_images <= limits.max_images


def test_a_tiny_row_only_adds() -> None:
    for model in MODELS.values():
        small = tiny(model)
        assert set(model.limits.resolutions) < set(small.limits.resolutions)
        assert small.limits.max_duration_s == model.limits.max_duration_s
        assert small.limits.min_duration_s == (2 if model.graph == "shot" else 1)
        assert (small.name, small.aliases, small.steps) == (model.name, model.aliases, model.steps)


@pytest.mark.parametrize("model", UPCOMING.values(), ids=lambda model: model.name)
def test_a_row_of_a_model_to_come_is_consistent(model: Known) -> None:
    limits = model.limits
    assert limits.default_resolution in limits.resolutions
    assert limits.min_duration_s <= limits.default_duration_s <= limits.max_duration_s
    assert {price.resolution for price in PRICES.get(model.name, ())} <= {None, *limits.resolutions}


def test_names_aliases_and_addresses_are_unique_in_any_case() -> None:
    names = [name.lower() for model in KNOWN.values() for name in model.names]
    assert len(set(names)) == len(names)


def test_models_are_found_by_every_name_in_any_case() -> None:
    registry = Registry(MODELS.values())
    for model in MODELS.values():
        for name in model.names:
            assert registry.find(name) is registry.find(name.upper()) is model


def test_an_unknown_model_lists_what_is_served() -> None:
    with pytest.raises(UnknownModel, match=r"served models: .*skyreels-v3-r2v") as caught:
        Registry(MODELS.values()).find("sora")
    assert caught.value.param == "model"
    with pytest.raises(UnknownModel, match="none"):
        Registry([]).find("skyreels-v3-r2v")


def test_what_is_known_and_not_served_is_told_from_what_is_unknown() -> None:
    registry = Registry(tiny(model) for model in MODELS.values())
    for name in ("skyreels-v4", "SKYWORK:skyreels@V4"):
        assert registry.known(name).name in UPCOMING
        with pytest.raises(UnknownModel, match=r"is not served here; served models: .*skyreels-v3-r2v"):
            registry.find(name)
    assert registry.known("skywork:skyreels-v3@R2V") is registry.find("skyreels-v3-r2v")  # the served, tiny row
    with pytest.raises(UnknownModel, match="'sora'"):
        registry.known("sora")


@pytest.mark.parametrize(
    ("name", "resolution", "workflow", "usd"),
    [
        ("skyreels-v3-r2v", "720P", "generate", "0.04"),
        ("skyreels-v3-r2v", "64P", "generate", "0.04"),
        ("skyreels-v4", "480P", "generate", "0.11"),
        ("skyreels-v4", "720P", "generate", "0.14"),
        ("skyreels-v4", "1080P", "generate", "0.35"),
        ("skyreels-v4", "480P", "edit", "0.18"),
        ("skyreels-v4", "720P", "edit", "0.25"),
        ("skyreels-v4", "1080P", "edit", "0.625"),
        ("skyreels-v1-i2v", "540P", "generate", "0"),
    ],
)
def test_prices(name: str, resolution: str, workflow: str, usd: str) -> None:
    assert PriceTable(PRICES).per_s_usd(name, resolution, workflow) == Decimal(usd)


def test_the_readme_shows_the_registry() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    shown = re.search(r"<!-- models -->\n(.*?)\n<!-- end of models -->", readme, re.DOTALL)
    assert shown is not None
    assert shown[1] == table(), f"README.md must show, between its marks:\n{table()}"


RELEASED = (
    *("T2V-14B-540P", "T2V-14B-720P", "I2V-1.3B-540P", "I2V-14B-540P", "I2V-14B-720P"),
    *("DF-1.3B-540P", "DF-14B-540P", "DF-14B-720P"),
)


@pytest.mark.parametrize("name", RELEASED)
def test_every_released_checkpoint_of_v2_has_a_row(name):
    registry = Registry(MODELS.values())
    row = registry.find(f"Skywork/SkyReels-V2-{name}")
    assert registry.find(f"Skywork/SkyReels-V2-{name}-Diffusers") is row
    kind, size, resolution = name.split("-")
    assert (row.graph, row.limits.resolutions) == (kind.lower(), (resolution,))
    assert row.heads == (12 if size == "1.3B" else 40)
    assert row.limits.default_duration_s == (5 if resolution == "720P" else 4)
    assert len({model.wavespeed for model in MODELS.values()}) == len(MODELS)
