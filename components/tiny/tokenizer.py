"""A small UMT5-style tokenizer made from a built-in corpus.

The library's unigram trainer gives another vocabulary on every run (its sums follow hash order), so the vocabulary is
counted here: every word and word prefix of the corpus by frequency, then every printable ASCII character, so that no
English prompt is unknown. Special tokens are UMT5's: <pad> 0, </s> 1, <unk> 2; a prompt ends with </s>.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

CORPUS = """
a woman in a red coat walks along the beach at sunset while the camera slowly moves closer
two men talk at a small table near the window of a quiet cafe and snow falls outside
a young girl holds a white cat and looks at the camera with a warm smile
the man in the first image stands on a street in the rain under bright city lights at night
a dog runs through tall grass in soft morning light and birds fly over the mountains
close up shot of a hand that pours hot coffee into a glass cup on a wooden table
cinematic wide shot of a car on a desert road with dust and a blue sky
the person from the reference image dances on a stage with colorful light and smoke
slow motion of water and leaves in a forest with a shallow depth of field and film grain
an astronaut opens the door of a ship and steps into a field of flowers on another planet
"""
_SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}  # in the order of their ids
_SPACE = "▁"
_PREFIX = 3  # shortest prefix of a word that becomes a piece


def write_tokenizer(folder: Path) -> int:
    """Writes `tokenizer.json` and its configuration; returns the vocabulary's size. Same bytes every time."""
    pieces: Counter[str] = Counter()
    for word in CORPUS.split():
        pieces.update(_SPACE + word[:end] for end in range(min(_PREFIX, len(word)), len(word) + 1))
        pieces.update(word)
    characters = {_SPACE, *map(chr, range(ord("!"), ord("~") + 1))}
    pieces.update(characters)
    total = pieces.total()
    ranked = sorted(pieces.items(), key=lambda item: (-item[1], item[0]))
    scored = [(piece, round(math.log(count / total), 6)) for piece, count in ranked]
    vocabulary = [*((token, 0.0) for token in _SPECIAL.values()), *scored]

    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens(list(_SPECIAL.values()))
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    options = {"tokenizer_class": "T5TokenizerFast", "model_max_length": 512, "extra_ids": 0, **_SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(_SPECIAL, indent=2) + "\n", encoding="utf-8")
    return len(vocabulary)
