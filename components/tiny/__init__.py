"""Toy checkpoints in the releases' own file layouts: the real loaders, code and graph with small seeded weights."""

from components.tiny.extension import write_extension
from components.tiny.r2v import write_r2v
from components.tiny.release import TinySizes

__all__ = ["TinySizes", "write_extension", "write_r2v"]
