from __future__ import annotations

import pytest

from cluster.config import parse
from cluster.errors import ConfigError
from cluster.tenancy import Limits, TenantLimits, digest, new_secret

BASE = """
profile: test
topology: monolith
models: [{name: skyreels-v3-r2v, checkpoint: none}]
pools: [{name: Monolith, stages: [text, condition, denoise, decode]}]
"""


def test_a_tenants_own_limit_goes_before_the_default() -> None:
    limits = Limits(default=TenantLimits(queued=5, running=1), tenants={"a": TenantLimits(running=9)})
    assert limits.of("a") == TenantLimits(queued=5, running=9)
    assert limits.of("b") == TenantLimits(queued=5, running=1)
    lifted = Limits.model_validate({"default": {"queued": 5}, "tenants": {"a": {"queued": None}}})
    assert lifted.of("a").queued is None


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("limits: {default: {queud: 1}}", "limits.default.queud"),
        ("limits: {tenants: {a: {running: 0}}}", "limits.tenants.a.running"),
        ("auth: maybe", "auth"),
        ("prices: {skyreels-v9: [{per_s_usd: 1}]}", "prices"),
        ("prices: {skyreels-v4: [{per_s_usd: 0.0000001}]}", "prices.skyreels-v4.0.per_s_usd"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(text: str, path: str) -> None:
    with pytest.raises(ConfigError, match=path):
        parse(BASE + text, "test")


def test_a_bare_off_is_what_it_looks_like() -> None:
    assert parse(BASE + "auth: off", "test").auth == "off"
    assert parse(BASE + "auth: keys", "test").auth == "keys"


def test_secrets_are_long_and_never_alike() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(secret.startswith("sk-") and len(secret) >= 46 for secret in secrets)
    assert len({digest(secret) for secret in secrets}) == 100
