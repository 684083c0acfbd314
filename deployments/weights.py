"""Where a pool finds the weights of the served models; what several models share is loaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cluster.config import Config
from cluster.pools import Pool
from cluster.registry import MODELS
from components import checkpoints
from components.device import Placement

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a pool finds the weights of each served model, and where it puts them."""

    config: Config
    roots: Mapping[str, Path]  # by canonical model name
    placement: Placement

    def load(self, loader: Callable[[Path, Placement], T], graphs: Iterable[str] | None = None) -> dict[str, T]:
        """A component of each served model (of these kinds of graph), one for all models of the same checkpoint."""
        names = [name for name in self.roots if graphs is None or MODELS[name].graph in graphs]
        by_root = {root: loader(root, self.placement) for root in dict.fromkeys(self.roots[name] for name in names)}
        return {name: by_root[self.roots[name]] for name in names}


def resolve(config: Config, pool: Pool) -> Weights:
    """Finds (or downloads) every served checkpoint. CheckpointMismatch, Unsupported."""
    roots = {served.name: checkpoints.resolve(served.checkpoint, served.revision) for served in config.models}
    return Weights(config, roots, Placement.of("cuda" if pool.num_gpus > 0 else "cpu"))
