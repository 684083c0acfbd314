"""A toy chat model in transformers' layout: Qwen2 at toy size with a tokenizer trained when it is written.

Random weights say nothing, but they say it as a string of ASCII characters: the head never proposes other bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from components.tiny.release import TinySizes, as_json, write_release
from components.tiny.tokenizer import CORPUS
from components.tiny.weights import fill

RECIPE = 1  # raised whenever the bytes written change
_END, _START, _TEXT = "<|im_end|>", "<|im_start|>", "<|endoftext|>"  # Qwen's own
_VOCABULARY = 512
_WINDOW = 8192
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_extender(root: Path, *, seed: int = 0, sizes: TinySizes | None = None) -> None:
    """Writes the checkpoint to `root`, as `write_release`; the same bytes for the same seed and sizes.

    Raises:
        FileExistsError: `root` is something else, perhaps real weights; it is never touched.
    """
    sizes = sizes or TinySizes()
    write_release(root, "extender", RECIPE, seed, sizes, lambda building: _write(building, seed, sizes))


def _write(root: Path, seed: int, sizes: TinySizes) -> None:
    tokenizer = _tokenizer()
    tokenizer.save(str(root / "tokenizer.json"))
    options = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": _END,
        "pad_token": _TEXT,
        "model_max_length": _WINDOW,
        "chat_template": _CHAT,
    }
    (root / "tokenizer_config.json").write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")
    ends = {"eos_token_id": tokenizer.token_to_id(_END), "pad_token_id": tokenizer.token_to_id(_TEXT)}
    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32 * sizes.heads,
        intermediate_size=64 * sizes.heads,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=max(1, sizes.heads // 2),
        max_position_embeddings=_WINDOW,
        tie_word_embeddings=False,
        **ends,
    )
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    fill(model, seed)
    with torch.no_grad():
        for piece, number in tokenizer.get_vocab().items():
            if not _is_text(tokenizer, piece, number):
                model.lm_head.weight[number] = 0
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(root)
    (root / "config.json").write_text(as_json(config.to_diff_dict()), encoding="utf-8")


def _tokenizer() -> Tokenizer:
    """Byte-level BPE, so that any prompt can be read."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_TEXT, _START, _END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS.splitlines(), trainer)
    return tokenizer


def _is_text(tokenizer: Tokenizer, piece: str, number: int) -> bool:
    text = tokenizer.decode([number], skip_special_tokens=False)
    return piece not in {_TEXT, _START} and text.isascii() and text.isprintable() and "\\" not in text
