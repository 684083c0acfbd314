"""Prompts to text context as HunyuanVideo's DiT takes it: rows of a LLaMA inside a template, and CLIP's one vector.

The template asks the language model for a description of a video. Its own tokens are cut off, the layers behind the one
that is read are never run, and no padding is computed: both models are causal, so padding behind a prompt changes
nothing. Template and cut are the library's, clip skip is the release's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self

import torch
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from tokenizers import Tokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from components.checkpoints import load_strict, read_config
from components.device import Placement
from components.errors import CheckpointMismatch
from components.text import read_tokenizer
from components.text_deepspeed import Arrange
from components.values import PooledContext

WEIGHTS = "text_encoder/model.safetensors"  # of small ones; large ones are in several files
TEXT_ROWS = 256
"""Most rows of a prompt; what is longer is cut."""
CLIP_SKIP = 2
"""Layers before the last that are left out: the DiT reads the hidden state −3, not normed."""
FRAME_RATE_PREFIX = "FPS-24, "
"""How the captions began that these models were trained on; ours is put where the caller left it out."""

_TEMPLATE: str = DEFAULT_PROMPT_TEMPLATE["template"]
_CROP: int = DEFAULT_PROMPT_TEMPLATE["crop_start"]  # tokens of the template before the prompt
MAX_TOKENS = _CROP + TEXT_ROWS
"""That the language model sees."""
_CLIP_TOKENS = 77
_CLIP_PREFIX = "text_model."  # of every name in the release's file; the library dropped it


class LanguageModel(Protocol):
    """Whatever computes the rows."""

    def rows(self, ids: list[int]) -> torch.Tensor:
        """Token ids to hidden states [1, L, D] behind the last layer but CLIP_SKIP, not normed."""
        ...


class Llama:
    """The library's model, without the layers that nothing reads."""

    def __init__(self, model: LlamaModel, placement: Placement) -> None:
        """Adopts a model that ends where its rows are read."""
        self._model = model
        self._device = placement.device

    @classmethod
    def load(cls, folder: Path, placement: Placement, arrange: Arrange | None = None) -> Self:
        """From a release's `text_encoder/`. CheckpointMismatch; Unsupported from `arrange`."""
        first = placement if arrange is None else placement.host
        model = llama_on_meta(folder)
        load_strict(model, folder, device=first.device, dtype_of=lambda _: placement.dtype)
        # Computed, not stored, so those on the meta device are empty.
        model.rotary_emb = LlamaRotaryEmbedding(config=model.config).to(first.device)
        kept = int(model.config.num_hidden_layers) - CLIP_SKIP
        model.layers = model.layers[:kept]
        model.config.num_hidden_layers = kept
        model.norm = torch.nn.Identity()
        return cls(model if arrange is None else arrange(model, placement), placement)

    @torch.no_grad()
    def rows(self, ids: list[int]) -> torch.Tensor:
        """See `LanguageModel`."""
        ids_BL = torch.tensor([ids], device=self._device)
        rows_BLD: torch.Tensor = self._model(input_ids=ids_BL, use_cache=False).last_hidden_state
        return rows_BLD


class HunyuanTextEncoder:
    """Both models with their tokenizers. Stateless between calls."""

    def __init__(
        self,
        language: LanguageModel,
        tokenizer: Tokenizer,
        clip: CLIPTextModel,
        clip_tokenizer: CLIPTokenizer,
        placement: Placement,
    ) -> None:
        """Takes ownership of the tokenizers: sets the first one's truncation."""
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        self._language = language
        self._tokenizer = tokenizer
        self._clip = clip
        self._clip_tokenizer = clip_tokenizer
        self._placement = placement

    @classmethod
    def load(cls, root: Path, placement: Placement, arrange: Arrange | None = None) -> Self:
        """From a release's `text_encoder/`, `text_encoder_2/`, `tokenizer/` and `tokenizer_2/`.

        CheckpointMismatch; Unsupported from `arrange`, which decides how the language model computes.
        """
        return cls.with_language(Llama.load(root / "text_encoder", placement, arrange), root, placement)

    @classmethod
    def with_language(cls, language: LanguageModel, root: Path, placement: Placement) -> Self:
        """The same with another language model than this process's own. CheckpointMismatch."""
        folder = root / "text_encoder_2"
        clip = clip_on_meta(folder)
        load_strict(clip, folder, device=placement.device, dtype_of=lambda _: placement.dtype, stored_as=clip_stored_as)
        embeddings = clip.embeddings
        positions = torch.arange(embeddings.position_ids.shape[-1], device=placement.device)[None]
        embeddings.register_buffer("position_ids", positions, persistent=False)
        return cls(
            language, read_tokenizer(root / "tokenizer"), clip, read_clip_tokenizer(root / "tokenizer_2"), placement
        )

    def encode(self, prompt: str, negative_prompt: str | None) -> PooledContext:
        """Both prompts; no negative prompt gives no rows, an empty one is encoded."""
        prompt_BLD, pooled_BE = self._encode(with_frame_rate(prompt))
        if negative_prompt is None:
            return PooledContext(prompt_BLD, pooled_BE, prompt_BLD[:, :0].clone(), torch.zeros_like(pooled_BE))
        return PooledContext(prompt_BLD, pooled_BE, *self._encode(negative_prompt))

    def _encode(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        rows_BLD = self._language.rows(self._tokenizer.encode(_TEMPLATE.format(prompt)).ids)
        return rows_BLD[:, _CROP:].to(self._placement.device, self._placement.dtype), self._pool(prompt)

    @torch.no_grad()
    def _pool(self, prompt: str) -> torch.Tensor:
        """[1, E], at the end of the text."""
        ids = self._clip_tokenizer(prompt, truncation=True, max_length=_CLIP_TOKENS)["input_ids"]
        pooled_BE: torch.Tensor = self._clip(torch.tensor([ids], device=self._placement.device)).pooler_output
        return pooled_BE


def with_frame_rate(prompt: str) -> str:
    """A prompt that begins as the captions of the training data did."""
    return prompt if prompt.startswith(FRAME_RATE_PREFIX) else FRAME_RATE_PREFIX + prompt


def llama_on_meta(folder: Path) -> LlamaModel:
    """The architecture that a folder's configuration describes, without weights. CheckpointMismatch."""
    config = LlamaConfig.from_dict(read_config(folder / "config.json"))
    if config.num_hidden_layers <= CLIP_SKIP:
        raise CheckpointMismatch(f"{folder} has {config.num_hidden_layers} layers; more than {CLIP_SKIP} are needed.")
    with torch.device("meta"):
        return LlamaModel(config)


def clip_on_meta(folder: Path) -> CLIPTextModel:
    """The same of CLIP's text tower. CheckpointMismatch."""
    config = CLIPTextConfig.from_dict(read_config(folder / "config.json"))
    with torch.device("meta"):
        return CLIPTextModel(config)


def clip_stored_as(name: str) -> str:
    """A parameter's name in the release's file, from the library's."""
    return _CLIP_PREFIX + name


def read_clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer. CheckpointMismatch when a file of it is missing."""
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise CheckpointMismatch(f"{folder / name} is missing; the checkpoint is incomplete.")
    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
