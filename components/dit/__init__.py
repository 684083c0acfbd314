"""Arrangements of the diffusion transformers, one module per model family."""

from components.dit.extension import ExtensionDiT
from components.dit.reference import REFERENCE_SLOTS, ReferenceDiT

__all__ = ["REFERENCE_SLOTS", "ExtensionDiT", "ReferenceDiT"]
