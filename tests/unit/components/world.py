"""Real ranks for tests: processes that form a gloo world over loopback and run functions of this package.

A fork server loads torch once; every rank is a fork of it, so a world of eight starts in about a second. Tensors
travel as numpy arrays: shared-memory handles would outlive a rank that dies.
"""

import multiprocessing
import multiprocessing.connection
import socket
import traceback
import warnings
from dataclasses import dataclass
from typing import Any

START_S = 60.0  # a start includes loading torch, once per test run
CALL_S = 60.0

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.unit.components.usp_ranks", "tests.unit.components.vae_ranks"])


@dataclass(frozen=True)
class Failure:
    """What a rank raised."""

    kind: str
    message: str
    trace: str


class World:
    """`world_size` ranks; a context manager. `timeout_s` is what their meshes wait for one collective."""

    def __init__(self, world_size, timeout_s=START_S):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._pipes, self.processes = [], []
        for rank in range(world_size):
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_serve, args=(theirs, rank, world_size, port, timeout_s), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)
        for answer in self._answers(START_S):
            assert answer is None, answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pipe in self._pipes:
            pipe.close()  # a rank that waits for a call sees the end of its pipe and leaves
        for process in self.processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()

    def run(self, function, *args) -> list[Any]:
        """The results of `function(rank_state, *args)` by rank; fails the test when a rank raises."""
        answers = self.attempt(function, *args)
        for rank, answer in enumerate(answers):
            assert not isinstance(answer, Failure), f"rank {rank}: {answer.trace}"
        return answers

    def attempt(self, function, *args) -> list[Any]:
        """Like `run`, with a Failure in place of the result of a rank that raised or died."""
        for pipe in self._pipes:
            pipe.send((function, args))
        return self._answers(CALL_S)

    def _answers(self, limit_s):
        answers = []
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(limit_s), f"rank {rank} gave no answer in {limit_s} s"
            try:
                answers.append(pipe.recv())
            except EOFError:
                answers.append(Failure("Died", "", ""))
        return answers


def _serve(pipe: multiprocessing.connection.Connection, rank: int, world_size: int, port: int, timeout_s: float):
    import torch

    from components.usp import close_group, init_group

    warnings.simplefilter("error")  # as in the test run itself
    torch.set_num_threads(1)
    init_group(rank=rank, world_size=world_size, address="127.0.0.1", port=port, timeout_s=START_S)
    state: dict[str, Any] = {"rank": rank, "timeout_s": timeout_s}
    pipe.send(None)
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            break
        try:
            answer = function(state, *args)
        except Exception as error:  # noqa: BLE001 - whatever a rank raises is the test's to judge
            answer = Failure(type(error).__name__, str(error), traceback.format_exc())
        pipe.send(answer)
    close_group()
