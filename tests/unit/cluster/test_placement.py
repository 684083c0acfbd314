from __future__ import annotations

import pytest

from cluster.placement import misplaced, satisfies
from cluster.pools import Pool

NODE = {"ray.io/node-id": "abc", "pool": "vae", "zone": "a"}


@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        ({}, True),
        ({"pool": "vae"}, True),
        ({"pool": "dit"}, False),
        ({"pool": "!dit"}, True),
        ({"pool": "!vae"}, False),
        ({"pool": "in(dit, vae)"}, True),
        ({"pool": "in(dit,text)"}, False),
        ({"pool": "!in(dit, text)"}, True),
        ({"pool": "!in(dit, vae)"}, False),
        ({"gpu": "h200"}, False),
        ({"gpu": "!h200"}, True),
        ({"pool": "vae", "zone": "b"}, False),
    ],
)
def test_a_selector_holds_where_all_its_rules_do(selector: dict[str, str], holds: bool) -> None:
    assert satisfies(NODE, selector) is holds


def pool(name: str, **labels: str) -> Pool:
    return Pool(name=name, stages=("text",), labels=labels)


def test_only_pools_that_no_node_can_take_are_named_with_what_there_is() -> None:
    found = misplaced([pool("Free"), pool("Here", pool="vae"), pool("Nowhere", pool="dit")], [{"zone": "b"}, NODE])
    assert found == {
        "Nowhere": "no node has the labels pool=dit that pool Nowhere asks for; nodes have zone=b | pool=vae, zone=a"
    }


def test_without_nodes_it_says_so() -> None:
    assert "nodes have not joined yet" in misplaced([pool("A", pool="vae")], [])["A"]
