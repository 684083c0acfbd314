"""Toy text encoders of HunyuanVideo, in the release's layout:

text_encoder/  tokenizer/  text_encoder_2/  tokenizer_2/
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

from components.text_hunyuan import clip_stored_as
from components.tiny.release import as_json
from components.tiny.weights import fill

TEXT_DIM = 64
POOLED_DIM = 24
_LAYERS = 4  # the last two of them are never run
_BEGIN = "<|begin_of_text|>"
_SPECIAL = (_BEGIN, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_UNKNOWN = "<unk>"
_PIECE = r"\n\n|\w+|[^\w\s]"
_SPLIT = {"movements": ("movement", "s")}
"""With this word in two pieces the template has as many tokens before the prompt as the release's tokenizer makes."""
_CLIP_BEGIN, _CLIP_END = "<|startoftext|>", "<|endoftext|>"


def write_text_encoders(root: Path, seed: int) -> None:
    """The same bytes for the same seed."""
    _write_llama(root / "text_encoder", _write_tokenizer(root / "tokenizer"), seed)
    _write_clip(root / "text_encoder_2", _write_clip_tokenizer(root / "tokenizer_2"), seed)


def _write_tokenizer(folder: Path) -> int:
    """Words of the template as they are, all else by character; returns the vocabulary's size."""
    template = DEFAULT_PROMPT_TEMPLATE["template"]
    for token in _SPECIAL:
        template = template.replace(token, " ")
    words = {piece for word in re.findall(_PIECE, template) for piece in _SPLIT.get(word, (word,))}
    characters = {"\n\n", *map(chr, range(ord("!"), ord("~") + 1))}
    # A word costs less than its characters, whatever its length.
    scored = [(word, -1.0 if len(word) > 1 else -4.0) for word in sorted(words | characters)]
    tokenizer = Tokenizer(models.Unigram([(_UNKNOWN, 0.0), *scored], unk_id=0))
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" +"), "removed"),
            pre_tokenizers.Split(Regex(_PIECE), "isolated"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BEGIN} $A", special_tokens=[(_BEGIN, tokenizer.token_to_id(_BEGIN))]
    )
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    options = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _BEGIN,
        "eos_token": _SPECIAL[-1],
        "pad_token": _SPECIAL[-1],
        "padding_side": "right",
        "model_max_length": 1024,
    }
    (folder / "tokenizer_config.json").write_text(as_json(options), encoding="utf-8")
    return tokenizer.get_vocab_size()


def _write_llama(folder: Path, vocabulary: int, seed: int) -> None:
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_DIM,
        intermediate_size=2 * TEXT_DIM,
        num_hidden_layers=_LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.device("meta"):
        model = LlamaModel(config)
    fill(model, seed)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    save_file(dict(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})


def _write_clip_tokenizer(folder: Path) -> int:
    """Bytes, at a word's end or before it; nothing is merged. Returns the vocabulary's size."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), _CLIP_BEGIN, _CLIP_END]
    folder.mkdir()
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    options = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": _CLIP_BEGIN,
        "eos_token": _CLIP_END,
        "unk_token": _CLIP_END,
        "pad_token": _CLIP_END,
        "model_max_length": 77,
    }
    (folder / "tokenizer_config.json").write_text(as_json(options), encoding="utf-8")
    return len(pieces)


def _write_clip(folder: Path, vocabulary: int, seed: int) -> None:
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=POOLED_DIM,
        intermediate_size=2 * POOLED_DIM,
        projection_dim=POOLED_DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    with torch.device("meta"):
        model = CLIPTextModel(config)
    fill(model, seed)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    state = {clip_stored_as(name): tensor for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
