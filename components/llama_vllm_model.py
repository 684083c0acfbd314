"""A LLaMA for vLLM that ends before the layers nothing reads: what the library calls hidden state −3.

Imported only where vLLM is installed (`components.llama_vllm`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from vllm.model_executor.models.llama import LlamaForCausalLM

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


class ShortLlama(LlamaForCausalLM):  # type: ignore[misc]
    """The first layers of a checkpoint, as many as the configuration says, without the norm behind them."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self._kept = int(vllm_config.model_config.hf_config.num_hidden_layers)
        self.model.norm = _Sum()

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """As vLLM's, of what is kept."""
        loaded: set[str] = super().load_weights((name, tensor) for name, tensor in weights if self._keeps(name))
        return loaded

    def _keeps(self, name: str) -> bool:
        layer = _LAYER.search(name)
        return int(layer[1]) < self._kept if layer else name.removeprefix("model.") != "norm.weight"


class _Sum(torch.nn.Module):
    """In a norm's place, which in vLLM adds up the residual stream too."""

    def forward(
        self, rows: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if residual is None:
            return rows
        return rows + residual, residual
