"""Prompts to text context: UMT5, as the Wan family uses it."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Self

import ftfy
import torch
from tokenizers import Tokenizer
from transformers import UMT5Config, UMT5EncoderModel

from components import text_original
from components.checkpoints import load_strict, read_config
from components.device import Placement
from components.errors import CheckpointMismatch
from components.text_deepspeed import Arrange
from components.values import TextContext

TEXT_ROWS = 512
"""Text rows the DiT attends to; prompts are cut and padded to it. There is no text mask, so padding counts."""

_PAD = "<pad>"
TIED = {"encoder.embed_tokens.weight": "shared.weight"}
"""UMT5's embedding has two names, alias → canonical; files hold one of them or both."""


def clean(prompt: str) -> str:
    """Repairs mojibake, resolves HTML entities (twice: they come escaped twice), collapses white space."""
    unescaped = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", unescaped).strip()


class TextEncoder:
    """UMT5 with its tokenizer. Stateless between calls."""

    def __init__(self, model: UMT5EncoderModel, tokenizer: Tokenizer, placement: Placement) -> None:
        """Takes ownership of the tokenizer: sets its truncation and padding."""
        pad_id = tokenizer.token_to_id(_PAD)
        if pad_id is None:
            raise CheckpointMismatch(f"The tokenizer has no {_PAD} token, so it is not UMT5's.")
        tokenizer.enable_truncation(TEXT_ROWS)
        tokenizer.enable_padding(length=TEXT_ROWS, pad_id=pad_id, pad_token=_PAD)
        self._model = model
        self._tokenizer = tokenizer
        self._placement = placement

    @classmethod
    def load(cls, root: Path, placement: Placement, arrange: Arrange | None = None) -> Self:
        """From a release's `text_encoder/` and `tokenizer/`, or their places in the original layout.

        CheckpointMismatch; Unsupported from `arrange`, which decides how the model computes.
        """
        first = placement if arrange is None else placement.host
        if (file := root / text_original.FILE).is_file():
            model, tokenizer = text_original.load(file, first, TIED), text_original.TOKENIZER
        else:
            folder, tokenizer = root / "text_encoder", "tokenizer"
            model = on_meta(folder)
            load_strict(model, folder, device=first.device, dtype_of=lambda _: placement.dtype, tied=TIED)
        arranged = model if arrange is None else arrange(model, placement)
        return cls(arranged, read_tokenizer(root / tokenizer), placement)

    def encode(self, prompt: str, negative_prompt: str | None) -> TextContext:
        """Both prompts as [1, TEXT_ROWS, D]; no negative prompt gives [1, 0, D], an empty one is encoded."""
        prompt_BLD = self._encode(prompt)
        negative_BLD = prompt_BLD[:, :0].clone() if negative_prompt is None else self._encode(negative_prompt)
        return TextContext(prompt_BLD=prompt_BLD, negative_BLD=negative_BLD)

    def _encode(self, prompt: str) -> torch.Tensor:
        encoding = self._tokenizer.encode(clean(prompt))
        return self.embed(torch.tensor([encoding.ids]), torch.tensor([encoding.attention_mask]))

    @torch.no_grad()
    def embed(self, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """Token ids [B, L] int64 and their mask (1 = a token, 0 = padding) to rows [B, L, D], zero at the padding."""
        device = self._placement.device
        ids_BL, mask_BL = ids_BL.to(device), mask_BL.to(device)
        rows_BLD: torch.Tensor = self._model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        return rows_BLD.masked_fill(mask_BL.unsqueeze(-1) == 0, 0)


def on_meta(folder: Path) -> UMT5EncoderModel:
    """The architecture that a folder's configuration describes, without weights. CheckpointMismatch."""
    config = UMT5Config.from_dict(read_config(folder / "config.json"))
    with torch.device("meta"):
        return UMT5EncoderModel(config)


def read_tokenizer(folder: Path) -> Tokenizer:
    """A folder's tokenizer. CheckpointMismatch when it is missing."""
    # The file is the tokenizer; the classes around it rebuild parts of it differently from version to version.
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise CheckpointMismatch(f"{file} is missing; the checkpoint is incomplete.")
    return Tokenizer.from_file(str(file))
