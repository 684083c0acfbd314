import pytest

SUITE = ("clients", "leases", "outbox", "results", "scheduler", "segments", "tenancy")
for part in ("contract", "play", *(f"contract_{name}" for name in SUITE)):
    pytest.register_assert_rewrite(f"{__name__}.{part}")
