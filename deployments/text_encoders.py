"""The text encoders of a pool, as its options say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from cluster.records import Request
from cluster.registry import MODELS
from components import text_hunyuan, text_original
from components.denoiser.avatar import CONNECTION_PROMPT
from components.device import Placement
from components.llama_vllm import VllmLlama
from components.text import TextEncoder
from components.text_deepspeed import Arrange, offload, split
from components.text_hunyuan import HunyuanTextEncoder
from components.values import Value
from deployments.weights import Weights, kinds_of

Encoder = TextEncoder | HunyuanTextEncoder
ARRANGED: Mapping[str, Arrange | None] = {"none": None, "deepspeed-tp": split, "zero-offload": offload}


def load_encoders(weights: Weights) -> dict[str, Encoder]:
    """By model; one for all models of the same weights. CheckpointMismatch, Unsupported."""
    pool = weights.pool
    arrange = ARRANGED[pool.parallel]
    hunyuan: Callable[[Path, Placement], HunyuanTextEncoder] = partial(HunyuanTextEncoder.load, arrange=arrange)
    return {
        **weights.load(partial(TextEncoder.load, arrange=arrange), kinds_of("wan"), text_original.FILE),
        **weights.load(_with_vllm if pool.llama == "vllm" else hunyuan, kinds_of("hunyuan"), text_hunyuan.WEIGHTS),
    }


def _with_vllm(root: Path, placement: Placement) -> HunyuanTextEncoder:
    return HunyuanTextEncoder.with_language(VllmLlama.load(root / "text_encoder", placement), root, placement)


def encoded(encoder: Encoder, request: Request, prompt: str) -> dict[str, Value]:
    """What the stage `text` gives, by port. `prompt` is the request's, or what it was extended to."""
    negative = request.negative_prompt if request.guidance > 1 else None
    values: dict[str, Value] = {"context": encoder.encode(prompt, negative)}
    if MODELS[request.model].graph == "avatar":
        values["connection"] = encoder.encode(CONNECTION_PROMPT, negative)
    return values
