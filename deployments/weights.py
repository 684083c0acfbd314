"""Where a pool finds the weights of the served models; what several models share is loaded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cluster.config import Config
from cluster.pools import Pool
from cluster.registry import MODELS
from cluster.wiring import PROMPT
from components import checkpoints
from components.device import Placement

T = TypeVar("T")
_END_NBYTES = 2**20


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a pool finds the weights of each served model, and where it puts them."""

    config: Config
    pool: Pool
    roots: Mapping[str, Path]  # of text encoders and VAE, by canonical model name
    placement: Placement

    def load(
        self, loader: Callable[[Path, Placement], T], graphs: Iterable[str] | None = None, file: str | None = None
    ) -> dict[str, T]:
        """A component of each served model (of these kinds of graph), one for all models of the same checkpoint.

        `file` names the component's weights in the original layout: releases that hold the same file share it too.
        """
        names = [name for name in self.roots if graphs is None or MODELS[name].graph in graphs]
        keys = {root: _identity(root, file) for root in dict.fromkeys(self.roots[name] for name in names)}
        loaded: dict[object, T] = {}
        for root, key in keys.items():
            if key not in loaded:
                loaded[key] = loader(root, self.placement)
        return {name: loaded[keys[self.roots[name]]] for name in names}

    def identify(self, parts: Iterable[str], graphs: Iterable[str] | None = None) -> dict[str, str]:
        """What a component computes with, in a word for each served model (of these kinds of graph): the content of its
        files and folders (those of `parts` that the checkpoint has), device and dtype. Equal words, equal results.
        """
        names = [name for name in self.roots if graphs is None or MODELS[name].graph in graphs]
        words = {
            root: checkpoints.sample([path for part in parts if (path := root / part).exists()])
            for root in dict.fromkeys(self.roots[name] for name in names)
        }
        return {name: f"{words[self.roots[name]]} {self.placement}" for name in names}


def kinds_of(family: str) -> frozenset[str]:
    """The kinds of graph whose models have such text encoders and VAE."""
    return frozenset(model.graph for model in MODELS.values() if model.family == family)


def _identity(root: Path, file: str | None) -> object:
    """What tells apart a component's weights: the checkpoint, or size and both ends of its one file."""
    if file is None or not (path := root / file).is_file():
        return root
    nbytes = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(_END_NBYTES)
        stream.seek(max(0, nbytes - _END_NBYTES))
        return nbytes, hashlib.sha256(head + stream.read()).hexdigest()


def resolve(config: Config, pool: Pool) -> Weights:
    """Finds (or downloads) every served checkpoint that the pool may need. CheckpointMismatch, Unsupported."""
    served_here = () if set(pool.stages) <= {PROMPT} else config.models  # which has a checkpoint of its own
    # The transformer of a base is another model's.
    roots = {
        served.name: checkpoints.resolve(*served.encoders, without=("transformer/*",) if served.base else ())
        for served in served_here
    }
    return Weights(config, pool, roots, Placement.of("cuda" if pool.num_gpus > 0 else "cpu"))
