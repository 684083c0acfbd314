"""Checkpoints: where they lie, whether they fit, and which ones they are."""

from components.checkpoints.fingerprint import fingerprint, sample
from components.checkpoints.pickled import read_pth
from components.checkpoints.source import known_arguments, read_config, resolve
from components.checkpoints.weights import fill_strict, load_strict, read_folder

__all__ = [
    "fill_strict",
    "fingerprint",
    "known_arguments",
    "load_strict",
    "read_config",
    "read_folder",
    "read_pth",
    "resolve",
    "sample",
]
