"""Extending prompts: a chat model rewrites what the caller wrote into the detailed caption that video models know.

The answer is guided to be JSON with one field. Its beginning, `{"prompt": "`, is put into the model's mouth, and it may
speak until the quote that ends the string: whatever the weights, that is one string. What cannot be used is left aside,
and the caller's own prompt stays (`judge`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

PREFIX = '{"prompt": "'
MAX_WORDS = 200  # UMT5 reads 512 tokens
_SHARED = f"""
    You write prompts for a model that makes videos. Rewrite the user's prompt as one paragraph of plain English with at
    most {MAX_WORDS} words. Keep everything that it asks for, add what it leaves open, contradict nothing, and translate
    it where it is in another language. Answer with JSON that has one field: {PREFIX}…"}}.
"""
_INSTRUCTIONS: Mapping[str, str] = {
    "text_to_video": """
        Describe one continuous shot as a detailed caption: who or what is seen and how it looks, what it does from the
        first moment to the last, the place, the light and the colours, and how the camera is placed and moves.
    """,
    "image_to_video": """
        The video begins with an image that the user has given and you cannot see. Describe how what is in it moves and
        how the camera moves, from the first moment to the last; do not invent how things look.
    """,
    "reference_to_video": """
        The video shows the subjects of reference images, which you cannot see; there are {images}. Mention every
        reference that the prompt mentions, written exactly as there, in the same order; never describe how its subject
        looks. Describe what the subjects do from the first moment to the last, the place, the light, and how the camera
        is placed and moves.
    """,
    "diffusion_forcing": """
        The video is one continuous shot of up to a minute, and may begin with an image or go on from a video that you
        cannot see. Describe who or what is seen, what it does one thing after the other so that something happens all
        the time, the place, the light, and how the camera is placed and moves.
    """,
    "single_shot_extension": """
        The video goes on from the last moment of a shot that you cannot see. Describe how the same subjects go on
        moving in the same place and how the camera goes on moving; there is no cut and nobody new.
    """,
    "shot_switching_extension": """
        The video cuts from a shot that you cannot see to a new one of the same scene. Say first which of five cuts it
        is, by its name: Cut-In (closer, to a detail of what was seen), Cut-Out (farther, so that the place is seen
        around it), Shot/Reverse Shot (to the other side, as to the one who is spoken to), Multi-Angle (the same action
        from another angle), Cut Away (to something else that belongs to the scene). Take the one that the prompt names
        or that serves it best. A tag in square brackets stays as it is, at the beginning. Then describe the new shot:
        what is seen, what it does, how the camera is placed and moves.
    """,
    "talking_avatar": """
        A portrait that you cannot see speaks to the camera by a recorded voice. Describe the face's expression,
        gestures, posture and glance while it speaks, and what happens behind it; the camera keeps its place. Do not
        write what is said.
    """,
}
_SAME_AS = {"hunyuan_text_to_video": "text_to_video", "hunyuan_image_to_video": "image_to_video"}
_MENTION = re.compile(r"(?<![\w@])@[\w-]+|\[[A-Z][A-Z_ -]*\]|\b(?:image|picture|reference) \d+\b", re.ASCII)
_SENTENCE = re.compile(r"[.!?。！？](?=\s|$)")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model chooses its tokens. Temperature 0 takes the likeliest; above, draws follow the seed."""

    max_tokens: int = 512
    temperature: float = 0.0


class Writer(Protocol):
    """A causal language model, wherever it runs. Deterministic for equal arguments. Used from several threads."""

    def write(
        self, ids: Sequence[int], sampling: Sampling, seed: int, done: Callable[[Sequence[int]], bool]
    ) -> list[int]:
        """The tokens behind `ids`, until the model ends, `done` says so of all so far, or there are `max_tokens`."""

    @property
    def ailment(self) -> str | None:
        """Why it cannot write any more, in a sentence; None while it can."""

    def close(self) -> None:
        """Ends whatever was started for it."""


def messages(task: str, prompt: str, images: int) -> list[dict[str, str]]:
    """What a chat model is asked. `task` is a model's (`text_to_video` …); unknown ones are asked for a caption."""
    wanted = _INSTRUCTIONS.get(_SAME_AS.get(task, task), _INSTRUCTIONS["text_to_video"])
    instruction = wanted.replace("{images}", str(images))
    system = " ".join(f"{_SHARED} {instruction}".split())
    return [{"role": "system", "content": system}, {"role": "user", "content": prompt}]


class Extender:
    """A chat model with its tokenizer."""

    def __init__(self, tokenizer: Any, writer: Writer, sampling: Sampling, window: int) -> None:
        """`tokenizer` is a transformers one with a chat template; `window`: tokens that the model can look at."""
        self._tokenizer = tokenizer
        self._writer = writer
        self._sampling = sampling
        self._window = window

    @property
    def ailment(self) -> str | None:
        return self._writer.ailment

    def answer(self, asked: Sequence[Mapping[str, str]], seed: int) -> str:
        """What the model says behind PREFIX, as JSON spells it; empty when the question is too long for it."""
        chat = self._tokenizer.apply_chat_template(list(asked), tokenize=False, add_generation_prompt=True)
        ids = self._tokenizer(chat + PREFIX, add_special_tokens=False).input_ids
        if len(ids) + self._sampling.max_tokens > self._window:
            return ""
        return self._text(self._writer.write(ids, self._sampling, seed, lambda made: _string(self._text(made))[1]))

    def close(self) -> None:
        """Ends what the writer has started."""
        self._writer.close()

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


@dataclass(frozen=True, slots=True)
class Judged:
    """The prompt that is encoded. `kept` says why it is the caller's own; None when it is the model's."""

    prompt: str
    kept: str | None = None


def judge(prompt: str, answer: str, *, max_chars: int) -> Judged:
    """Takes a model's answer, cut at a sentence to `max_chars`, where it is usable: a text that is not the prompt again
    and mentions every reference and tag of it in their order.
    """
    content, closed = _string(answer)
    try:
        text = " ".join(json.loads(f'"{content}"', strict=False).split())
    except ValueError:
        return Judged(prompt, "The model's answer is not JSON.")
    if not closed or len(text) > max_chars:
        text = _cut(text[:max_chars])
    flaw = _flaw(prompt, text)
    return Judged(text) if flaw is None else Judged(prompt, f"The model's answer {flaw}.")


def _flaw(prompt: str, text: str) -> str | None:
    """Why a text cannot stand for the prompt."""
    if not any(character.isalpha() for character in text):
        return "is empty"
    if "\ufffd" in text or not text.isprintable():
        return "is not a text"
    if text.casefold() == " ".join(prompt.split()).casefold():
        return "is the prompt itself"
    asked, mentioned = _mentions(prompt), _mentions(text)
    if lost := [name for name in asked if name not in mentioned]:
        return f"does not mention {', '.join(lost)}"
    if [name for name in mentioned if name in asked] != asked:
        return f"does not keep the order of {', '.join(asked)}"
    return None


def _string(answer: str) -> tuple[str, bool]:
    """What stands before the quote that ends a JSON string, and whether there is one."""
    place = 0
    while place < len(answer):
        if answer[place] == '"':
            return answer[:place], True
        place += 2 if answer[place] == "\\" else 1
    return answer[:-1] if place > len(answer) else answer, False  # without half of an escape


def _cut(text: str) -> str:
    """Up to the last sentence's end, or else the last whole word."""
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    return text[: ends[-1]] if ends else text.rpartition(" ")[0] or text


def _mentions(text: str) -> list[str]:
    """References and tags, each once, in the order in which they first appear."""
    return list(dict.fromkeys(_MENTION.findall(text)))
