"""A chat model by transformers, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from components.checkpoints import read_config
from components.device import Placement
from components.errors import CheckpointMismatch
from components.prompt import Sampling


class TransformersWriter:
    """One model on one device."""

    ailment = None  # what breaks here raises

    def __init__(self, model: Any, ends: list[int]) -> None:
        """`model` is a transformers causal language model; `ends` are the tokens that end a turn."""
        self._ends = ends
        # A release's own defaults (sampling, penalties) would come back into every call.
        model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ends[0])
        self._model = model

    @classmethod
    def load(cls, root: Path, placement: Placement) -> Self:
        """From a folder in transformers' layout. CheckpointMismatch."""
        try:
            model, found = AutoModelForCausalLM.from_pretrained(
                root, dtype=placement.dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError) as error:
            raise CheckpointMismatch(f"{root} holds no language model that transformers can load: {error}") from error
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if names := sorted(map(str, found[what])):
                raise CheckpointMismatch(f"{root} does not fit its configuration: {what} {names[0]} of {len(names)}.")
        return cls(model.to(placement.device).eval(), ends_of(root))

    @torch.no_grad()
    def write(
        self, ids: Sequence[int], sampling: Sampling, seed: int, done: Callable[[Sequence[int]], bool]
    ) -> list[int]:
        """See `Writer.write`."""
        ids_BL = torch.tensor([list(ids)], device=self._model.device)
        drawing = [_Draw(sampling.temperature, seed)] if sampling.temperature > 0 else []
        made_BL = self._model.generate(
            ids_BL,
            attention_mask=torch.ones_like(ids_BL),
            max_new_tokens=sampling.max_tokens,
            do_sample=False,
            logits_processor=LogitsProcessorList(drawing),
            stopping_criteria=StoppingCriteriaList([_Until(len(ids), done)]),
        )
        made: list[int] = made_BL[0, len(ids) :].tolist()
        return made[:-1] if made and made[-1] in self._ends else made

    def close(self) -> None:
        """Nothing was started."""


def read_chat(root: Path) -> tuple[Any, int]:
    """A chat model's tokenizer, and how many tokens the model can look at. CheckpointMismatch."""
    if not (root / "tokenizer.json").is_file():  # without it the library would make an empty one
        raise CheckpointMismatch(f"{root / 'tokenizer.json'} is missing; the checkpoint is incomplete.")
    tokenizer = AutoTokenizer.from_pretrained(root, local_files_only=True)
    if tokenizer.chat_template is None:
        raise CheckpointMismatch(f"{root} has no chat template; choose a model that was tuned for instructions.")
    window = read_config(root / "config.json").get("max_position_embeddings")
    if not isinstance(window, int):
        raise CheckpointMismatch(f"{root / 'config.json'} does not say max_position_embeddings.")
    return tokenizer, window


def ends_of(root: Path) -> list[int]:
    """The tokens with which a model ends its turn. CheckpointMismatch."""
    ends = read_config(root / "generation_config.json").get("eos_token_id")
    found = [ends] if isinstance(ends, int) else list(ends or ())
    if not found:
        raise CheckpointMismatch(f"{root / 'generation_config.json'} names no eos_token_id; it is no chat model.")
    return found


class _Draw(LogitsProcessor):  # type: ignore[misc] # untyped library
    """Makes the likeliest token a draw: argmax(logits / T + Gumbel noise) is a sample of softmax(logits / T).

    The Gumbel-max trick, with a generator of its own, unlike the library's sampling: other threads cannot disturb it.
    """

    def __init__(self, temperature: float, seed: int) -> None:
        self._temperature = temperature
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.empty(scores.shape).exponential_(generator=self._generator).log().neg()
        return scores.float() / self._temperature + noise.to(scores.device)


class _Until(StoppingCriteria):  # type: ignore[misc] # untyped library
    """Ends when `done` says so of the new tokens."""

    def __init__(self, start: int, done: Callable[[Sequence[int]], bool]) -> None:
        self._start = start
        self._done = done

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        ended = [self._done(row[self._start :].tolist()) for row in input_ids]
        return torch.tensor(ended, device=input_ids.device)
