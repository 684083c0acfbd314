"""Which pools no node can take: a selector that nothing satisfies makes Ray wait in silence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cluster.pools import Pool

Labels = Mapping[str, str]


def satisfies(node: Labels, selector: Labels) -> bool:
    """Whether a node's labels satisfy all rules `x`, `!x`, `in(x, y)` and `!in(x, y)`; a missing label is none of
    them.
    """
    return all(_holds(node.get(key), rule) for key, rule in selector.items())


def misplaced(pools: Iterable[Pool], nodes: Sequence[Labels]) -> dict[str, str]:
    """By pool, why no node can take it; nothing for the others."""
    return {
        pool.name: f"no node has the labels {_told(pool.labels)} that pool {pool.name} asks for; nodes have "
        f"{' | '.join(_told(node) for node in nodes) or 'not joined yet'}"
        for pool in pools
        if not any(satisfies(node, pool.labels) for node in nodes)
    }


def _holds(value: str | None, rule: str) -> bool:
    plain = rule.removeprefix("!")
    allowed = plain[3:-1].split(",") if plain.startswith("in(") else [plain]
    return (value in {one.strip() for one in allowed}) is not rule.startswith("!")


def _told(labels: Labels) -> str:
    """Without those that Ray gives every node."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()) if key != "ray.io/node-id") or "none"
