"""Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598): two evaluations a step."""

from __future__ import annotations

import torch

from components.branches import Branch, Branches
from components.denoiser.spec import DenoiseSpec
from components.values import TextContext


def guided(branches: Branches, guidance: float, prompted: Branch, negative: Branch) -> torch.Tensor:
    """v_negative + g · (v − v_negative); the prompted velocity alone where the guidance is 1."""
    if guidance <= 1:
        (velocity_BCTHW,) = branches([prompted])
        return velocity_BCTHW
    velocity_BCTHW, negative_BCTHW = branches([prompted, negative])
    return negative_BCTHW + guidance * (velocity_BCTHW - negative_BCTHW)


def refuse_missing_negative(spec: DenoiseSpec, context: TextContext) -> None:
    """ValueError unless a guided run has the negative prompt's context."""
    if spec.guided and not context.negative_BLD.shape[1]:
        raise ValueError("guidance above 1 needs the negative prompt's context")
