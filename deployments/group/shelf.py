"""Weights that had to make room: they wait in host memory, so that the next use costs a copy instead of a load."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from components.denoiser import Denoiser


class Shelf:
    """One rank's denoisers off the device, the one put away longest ago first. They keep how their work is shared."""

    def __init__(self, limit_nbytes: int) -> None:
        """Holds weights of at most so many bytes; 0 holds none."""
        self._limit_nbytes = limit_nbytes
        self._held: dict[str, Denoiser] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the weights that wait here."""
        return sum(_nbytes(denoiser) for denoiser in self._held.values())

    def put(self, model: str, denoiser: Denoiser) -> None:
        """Takes a denoiser's weights off the device. Those put away longest ago go, or these where they alone are too
        many.
        """
        if _nbytes(denoiser) > self._limit_nbytes:
            return
        denoiser.task.model.to("cpu")
        self._held[model] = denoiser
        while self.nbytes > self._limit_nbytes:
            del self._held[next(iter(self._held))]

    def take(self, model: str, device: torch.device) -> Denoiser | None:
        """A denoiser with its weights on the device again; None where it does not wait here."""
        denoiser = self._held.pop(model, None)
        if denoiser is not None:
            denoiser.task.model.to(device)
        return denoiser

    def clear(self) -> None:
        """Lets go of everything."""
        self._held.clear()


def _nbytes(denoiser: Denoiser) -> int:
    return sum(tensor.nbytes for tensor in _tensors(denoiser.task.model))


def _tensors(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()
