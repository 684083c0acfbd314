"""The LLaMA of SkyReels V1 by vLLM, in this process: its kernels instead of transformers', with equal rows.

vLLM knows no hidden states but the last, so it is given a model that ends where they are read
(`components.llama_vllm_model`). Without a GPU it binds this process's threads to the cores as it sees fit.
"""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path
from typing import Any, Self

import torch

from components.device import Placement
from components.errors import Unsupported
from components.text_hunyuan import CLIP_SKIP, MAX_TOKENS, llama_on_meta

_CACHE_NBYTES = 256 * 2**20  # of keys and values: one prompt of the released model takes 50 MB in bf16, 100 in fp32
_NAME = "ShortLlama"


class VllmLlama:
    """See `components.text_hunyuan.LanguageModel`. Prompts take turns."""

    def __init__(self, engine: Any) -> None:
        """Adopts an `LLMEngine`."""
        self._engine = engine
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, folder: Path, placement: Placement) -> Self:
        """From a release's `text_encoder/`. CheckpointMismatch; Unsupported where vLLM is not installed."""
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # read on import: the engine would report its use
        try:
            from vllm import EngineArgs, ModelRegistry  # noqa: PLC0415 (an extra)
            from vllm.config import PoolerConfig  # noqa: PLC0415
            from vllm.usage.usage_lib import UsageContext  # noqa: PLC0415
            from vllm.v1.engine.llm_engine import LLMEngine  # noqa: PLC0415
            from vllm.v1.executor.uniproc_executor import UniProcExecutor  # noqa: PLC0415

            from components.llama_vllm_model import ShortLlama  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise Unsupported(
                "llama: vllm is not installed; run `make install-vllm`, or choose transformers."
            ) from error
        layers = int(llama_on_meta(folder).config.num_hidden_layers)
        ModelRegistry.register_model(_NAME, ShortLlama)
        config = EngineArgs(
            model=str(folder),
            dtype=str(placement.dtype).removeprefix("torch."),
            runner="pooling",
            convert="embed",
            pooler_config=PoolerConfig(task="token_embed"),
            hf_overrides={"architectures": [_NAME], "num_hidden_layers": layers - CLIP_SKIP},
            max_model_len=MAX_TOKENS,
            max_num_seqs=1,
            kv_cache_memory_bytes=_CACHE_NBYTES,
            enable_prefix_caching=False,
            skip_tokenizer_init=True,
            enforce_eager=True,
            disable_log_stats=True,
        ).create_engine_config(UsageContext.LLM_CLASS)
        return cls(LLMEngine(config, UniProcExecutor, log_stats=False, multiprocess_mode=False))

    def rows(self, ids: list[int]) -> torch.Tensor:
        """See `LanguageModel`; on CPU."""
        from vllm import PoolingParams, TokensPrompt  # noqa: PLC0415

        options = PoolingParams(task="token_embed", use_activation=False)
        with self._lock:
            self._engine.add_request(str(next(self._numbers)), TokensPrompt(prompt_token_ids=ids), options)
            while True:
                for answer in self._engine.step():
                    if answer.finished:
                        rows_BLD: torch.Tensor = answer.outputs.data[None]
                        return rows_BLD
