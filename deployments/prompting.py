"""The stage that extends prompts. It needs none of the served models' weights, only a chat model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from cluster.config import Prompt
from cluster.records import Extension
from cluster.registry import MODELS
from components import checkpoints
from components.device import Placement
from components.errors import CheckpointMismatch
from components.prompt import Extender, Sampling, Writer, judge, messages
from components.values import PromptText
from components.writer_transformers import TransformersWriter, read_chat
from components.writer_vllm import VllmWriter
from deployments.room import Produced, Room
from deployments.weights import Weights


def _transformers(root: Path, placement: Placement, settings: Prompt) -> Writer:
    return TransformersWriter.load(root, placement)


def _vllm(root: Path, placement: Placement, settings: Prompt) -> Writer:
    return VllmWriter.load(
        root,
        placement,
        window=settings.window,
        tensor_parallel=settings.tensor_parallel,
        memory_share=settings.memory_share,
        cache_nbytes=settings.cache_nbytes,
    )


BACKENDS: Mapping[str, Callable[[Path, Placement, Prompt], Writer]] = {"transformers": _transformers, "vllm": _vllm}


class PromptStage:
    """A request's prompt → PromptText, and what became of it."""

    def __init__(self, weights: Weights) -> None:
        settings = weights.config.prompt
        if settings.checkpoint is None:
            raise CheckpointMismatch("prompt.checkpoint names no chat model.")
        root = checkpoints.resolve(settings.checkpoint, settings.revision)
        tokenizer, window = read_chat(root)
        settings = settings.model_copy(update={"window": min(settings.window, window)})
        writer = BACKENDS[settings.backend](root, weights.placement, settings)
        self._sampling = Sampling(settings.max_tokens, settings.temperature)
        self._extender = Extender(tokenizer, writer, self._sampling, settings.window)
        self._weights = f"{checkpoints.sample([root])} {weights.placement} {settings.backend}"

    async def run(self, room: Room) -> Produced:
        request = room.request
        model = MODELS[request.model]
        asked = messages(model.task, request.prompt, len(request.images))
        seed = request.seed if self._sampling.temperature > 0 else 0  # it plays no part: equal prompts, equal answers
        answer = await room.recall(
            PromptText,
            self._weights,
            {"messages": asked, "sampling": asdict(self._sampling), "seed": seed},
            lambda: room.compute(self._answer, asked, seed),
        )
        judged = judge(request.prompt, answer.text, max_chars=model.limits.max_prompt_chars)
        return Produced({"prompt": PromptText.of(judged.prompt)}, extension=Extension(judged.prompt, judged.kept))

    @property
    def ailment(self) -> str | None:
        return self._extender.ailment

    def close(self) -> None:
        """Ends the engine's processes, where there are any."""
        self._extender.close()

    def _answer(self, asked: list[dict[str, str]], seed: int) -> PromptText:
        return PromptText.of(self._extender.answer(asked, seed))
