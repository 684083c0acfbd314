"""Extending prompts by transformers and by vLLM. Not a test: nothing here is asserted.

`python -m tests.perf.prompt`; random weights of Qwen2's shape on the CPU, as many threads as cores for either.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from transformers import AutoTokenizer

from components.device import Placement
from components.prompt import Sampling, Writer, messages
from components.tiny import TinySizes, write_extender
from components.writer_transformers import TransformersWriter
from components.writer_vllm import VllmWriter

RUNS = 3
TOKENS = 64
WINDOW = 4096
SIZES = TinySizes(layers=16, heads=24)  # width 768: 76 million weights
PROMPTS = [f"A red ball rolls to box {number}" for number in range(8)]


def measured(writer: Writer, questions: list[list[int]], at_once: int) -> list[float]:
    """Tokens per second of all questions, `at_once` at a time, RUNS times."""
    found = []
    with ThreadPoolExecutor(at_once) as pool:
        for _ in range(RUNS + 1):
            began = time.perf_counter()
            asked = pool.map(lambda ids: writer.write(ids, Sampling(TOKENS), 0, lambda made: False), questions)
            made = sum(len(ids) for ids in asked)
            found.append(made / (time.perf_counter() - began))
    return found[1:]  # without the first: caches fill


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "extender"
        write_extender(root, sizes=SIZES)
        tokenizer = AutoTokenizer.from_pretrained(root)
        chats = [tokenizer.apply_chat_template(messages("text_to_video", p, 0), tokenize=False) for p in PROMPTS]
        questions = [tokenizer(chat, add_special_tokens=False).input_ids for chat in chats]
        cpu = Placement.of("cpu")
        writers: dict[str, Writer] = {"transformers": TransformersWriter.load(root, cpu)}
        if importlib.util.find_spec("vllm") is not None:
            writers["vllm"] = VllmWriter.load(root, cpu, window=WINDOW)
        print(f"questions of {len(questions[0])} tokens, answers of {TOKENS}")  # noqa: T201
        print("| backend | at once | tokens per second |\n|---|---|---|")  # noqa: T201
        for backend, writer in writers.items():
            for at_once in (1, 4):
                rates = measured(writer, questions, at_once)
                middle, low, high = statistics.median(rates), min(rates), max(rates)
                print(f"| {backend} | {at_once} | {middle:.0f} ({low:.0f}–{high:.0f}) |")  # noqa: T201
            writer.close()


if __name__ == "__main__":
    main()
