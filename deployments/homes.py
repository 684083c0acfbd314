"""Where models are at home: a group that cannot hold all of them tells Serve which it holds.

Serve's model multiplexing then sends a model's calls to a replica that holds it, and elsewhere only when that one is
full. What Serve knows is a hint: the newest models that were used here, as many as there are places. The group itself
decides what goes, and never takes away what a resident uses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ray import serve

from cluster.config import Config

Announce = Callable[[str], Awaitable[str]]


def scarce(config: Config) -> bool:
    """Whether groups hold fewer models than are served, so that it matters which replica gets a call."""
    return len(config.models) > config.denoise.loaded


def announcer(config: Config) -> Announce:
    """Tells Serve that a model is used here. Only inside a replica."""

    async def announce(model: str) -> str:
        return model

    told: Announce = serve.multiplexed(max_num_models_per_replica=config.denoise.loaded)(announce)
    return told
