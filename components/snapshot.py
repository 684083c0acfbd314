"""A run of the denoiser between two steps, as one blob.

Tensors and JSON-able meta travel as a safetensors file in memory: no code is executed on reading, and any tool opens
it. The denoiser says what is inside; here is only the envelope.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from components.errors import SnapshotMismatch

_META = "snapshot"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Tensors on CPU and what they belong to."""

    tensors: Mapping[str, torch.Tensor]
    meta: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Steps done when it was taken."""
        return int(self.meta["step"])

    def to_bytes(self) -> bytes:
        """One safetensors blob, the meta in its header."""
        blob: bytes = save(dict(self.tensors), metadata={_META: json.dumps(self.meta, sort_keys=True)})
        return blob

    @classmethod
    def from_bytes(cls, blob: bytes) -> Self:
        """The inverse of `to_bytes`.

        Raises:
            SnapshotMismatch: the blob is cut short or is no snapshot.
        """
        try:
            tensors = load(blob)
            length = int.from_bytes(blob[:8], "little")
            meta = json.loads(json.loads(blob[8 : 8 + length])["__metadata__"][_META])
        except (SafetensorError, ValueError, KeyError) as error:
            raise SnapshotMismatch("The snapshot is damaged or of another kind; start the run again.") from error
        return cls(tensors, meta)
