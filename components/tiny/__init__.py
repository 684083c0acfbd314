"""Toy checkpoints in the releases' own file layouts: the real loaders, code and graph with small seeded weights."""

from components.tiny.r2v import TinySizes, write_r2v

__all__ = ["TinySizes", "write_r2v"]
