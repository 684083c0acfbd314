"""What ranks do in the tests of shared text encoders. Every function takes the rank's state first."""

import importlib
import warnings

from components.device import Placement
from components.text import TextEncoder
from components.text_deepspeed import offload, split
from components.text_hunyuan import HunyuanTextEncoder

ARRANGED = {"split": split, "offload": offload}
PROMPTS = [("a woman walks by the sea", "rain"), ("a cat", None)]


def load_library(state) -> None:
    """Takes tens of seconds on a busy machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("deepspeed")


def encode(state, kind, root, how):
    """Every prompt's values by name, and how many parameters of the model this rank holds."""
    loader = {"umt5": TextEncoder, "llama": HunyuanTextEncoder}[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls what PyTorch is about to drop
        encoder = loader.load(root, Placement.of("cpu"), ARRANGED[how])
        values = [encoder.encode(*prompt).tensors() for prompt in PROMPTS]
    model = encoder._model if kind == "umt5" else encoder._language._model
    held = sum(parameter.numel() for parameter in model.parameters())
    return [{name: tensor.numpy() for name, tensor in found.items()} for found in values], held
