"""Extending prompts by transformers and by vLLM. Not a test: nothing here is asserted.

`python -m tests.perf.prompt`; random weights of Qwen2's shape on the CPU, one thread for either.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from components.device import Placement
from components.prompt import Sampling, Writer, messages
from components.tiny import TinySizes, write_extender
from components.writer_transformers import TransformersWriter, read_chat
from components.writer_vllm import VllmWriter

RUNS = 3
TOKENS = 32
WINDOW = 4096
SIZES = TinySizes(layers=8, heads=12)  # width 384: 10 million weights
HEAD = "| at once | backend | tokens per second |"
PROMPTS = [f"A red ball rolls to box {number}" for number in range(4)]


def rate(writer: Writer, questions: list[list[int]], at_once: int) -> float:
    """Tokens per second of all questions, `at_once` at a time."""
    with ThreadPoolExecutor(at_once) as pool:
        began = time.perf_counter()
        asked = pool.map(lambda ids: writer.write(ids, Sampling(TOKENS), 0, lambda made: False), questions)
        made = sum(len(ids) for ids in asked)
        return made / (time.perf_counter() - began)


def main() -> None:
    torch.set_num_threads(1)  # vLLM leaves a core to its other processes
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "extender"
        write_extender(root, sizes=SIZES)
        tokenizer, _ = read_chat(root)
        chats = [tokenizer.apply_chat_template(messages("text_to_video", p, 0), tokenize=False) for p in PROMPTS]
        questions = [tokenizer(chat, add_special_tokens=False).input_ids for chat in chats]
        cpu = Placement.of("cpu")
        writers: dict[str, Writer] = {"transformers": TransformersWriter.load(root, cpu)}
        if importlib.util.find_spec("vllm") is not None:
            writers["vllm"] = VllmWriter.load(root, cpu, window=WINDOW)
        rates: dict[tuple[str, int], list[float]] = {(name, many): [] for many in (1, 4) for name in writers}
        for run in range(RUNS + 1):  # in turns, so that whatever else the machine does falls on all
            for (backend, many), found in rates.items():
                made = rate(writers[backend], questions, many)
                if run:  # not the first: caches fill
                    found.append(made)
        lines = [f"questions of {len(questions[0])} tokens, answers of {TOKENS}", "", HEAD, "|---|---|---|"]
        for (backend, many), found in rates.items():
            middle, low, high = statistics.median(found), min(found), max(found)
            lines.append(f"| {many} | {backend} | {middle:.0f} ({low:.0f}–{high:.0f}) |")
        print("\n".join(lines))  # noqa: T201 (what it is for)
        for writer in writers.values():
            writer.close()


if __name__ == "__main__":
    main()
