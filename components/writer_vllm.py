"""A chat model by vLLM: continuous batching, and several GPUs by tensor parallelism.

The engine runs in processes of its own; its client is asynchronous and lives on an event loop of its own thread, so
that callers on any thread may wait for an answer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self

from components.device import Placement
from components.errors import Unsupported
from components.prompt import Sampling
from components.writer_transformers import ends_of


class VllmWriter:
    """One engine."""

    def __init__(self, thread: threading.Thread, loop: asyncio.AbstractEventLoop, engine: Any, ends: list[int]) -> None:
        """`engine` is an `AsyncLLM` made on `loop`, which runs on `thread`; `ends` are the tokens that end a turn."""
        self._thread = thread
        self._loop = loop
        self._engine = engine
        self._ends = ends
        self._numbers = itertools.count()

    @classmethod
    def load(
        cls,
        root: Path,
        placement: Placement,
        *,
        window: int,
        tensor_parallel: int = 1,
        memory_share: float = 0.9,
        cache_nbytes: int = 2**28,
    ) -> Self:
        """From a folder in transformers' layout.

        Args:
            root: the checkpoint.
            placement: on GPUs the engine takes the first `tensor_parallel` that the process sees.
            window: longest question and answer together, in tokens.
            tensor_parallel: ranks that share each layer.
            memory_share: of each GPU's memory, weights and cache together.
            cache_nbytes: of keys and values, without a GPU; a window must fit.

        Raises:
            Unsupported: vLLM is not installed.
        """
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # read on import: the engine would report its use
        try:
            from vllm import AsyncEngineArgs  # noqa: PLC0415 (an extra)
            from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415
        except ModuleNotFoundError as error:
            message = "prompt.backend: vllm is not installed; run `make install-vllm`, or choose transformers."
            raise Unsupported(message) from error
        on_cpu = placement.device.type == "cpu"
        arguments = AsyncEngineArgs(
            model=str(root),
            dtype=str(placement.dtype).removeprefix("torch."),
            tensor_parallel_size=tensor_parallel,
            max_model_len=window,
            skip_tokenizer_init=True,
            enforce_eager=on_cpu,
            disable_log_stats=True,
            **({"kv_cache_memory_bytes": cache_nbytes} if on_cpu else {"gpu_memory_utilization": memory_share}),
        )
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="vllm", daemon=True)
        thread.start()

        async def start() -> Any:
            return AsyncLLM.from_engine_args(arguments)

        return cls(thread, loop, asyncio.run_coroutine_threadsafe(start(), loop).result(), ends_of(root))

    def write(
        self, ids: Sequence[int], sampling: Sampling, seed: int, done: Callable[[Sequence[int]], bool]
    ) -> list[int]:
        """See `Writer.write`."""
        return asyncio.run_coroutine_threadsafe(self._write(list(ids), sampling, seed, done), self._loop).result()

    async def _write(
        self, ids: list[int], sampling: Sampling, seed: int, done: Callable[[Sequence[int]], bool]
    ) -> list[int]:
        from vllm import SamplingParams, TokensPrompt  # noqa: PLC0415

        options = SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=seed,
            stop_token_ids=self._ends,
            detokenize=False,
        )
        made: list[int] = []
        answers = self._engine.generate(TokensPrompt(prompt_token_ids=ids), options, f"prompt-{next(self._numbers)}")
        async with aclosing(answers):  # leaving early aborts the request
            async for answer in answers:
                (completion,) = answer.outputs
                made = list(completion.token_ids)
                if done(made):
                    return made
        return made[:-1] if made and made[-1] in self._ends else made

    @property
    def ailment(self) -> str | None:
        return "the engine of vLLM has died" if self._engine.errored else None

    def close(self) -> None:
        """Ends the engine's processes."""

        async def end() -> None:
            self._engine.shutdown()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        del self._engine  # at the interpreter's end it would complain of half a library
