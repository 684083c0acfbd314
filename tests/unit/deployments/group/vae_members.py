"""What members of a VAE group do in the tests. Every function takes the rank's state first."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.config import Config
from cluster.pools import Pool
from cluster.records import StageWork

with warnings.catch_warnings():  # a rank raises on every warning, third parties' at import too
    warnings.simplefilter("ignore")
    from deployments.group import commands
    from deployments.group.commands import Command, Outcome
    from deployments.group.vae_rank import VaeMember

POOL = Pool(name="Vae", stages=("condition", "decode"), ranks=2)


def member(state: dict[Any, Any], config: Config) -> VaeMember:
    """This rank's, made and loaded once. The world is the one that the rank is in already."""
    if "member" not in state:
        state["member"], state["number"] = VaeMember(config, POOL, state["rank"]), 0
        tell(state, config, [commands.Load(model.name) for model in config.models])
    made: VaeMember = state["member"]
    return made


def tell(state: dict[Any, Any], config: Config, orders: Sequence[Command]) -> list[Outcome]:
    """The answers to these commands."""
    one = member(state, config)
    outcomes = []
    for order in orders:
        state["number"] += 1
        outcomes.append(one.execute(state["number"], order))
    return outcomes


def work(state: dict[Any, Any], config: Config, call: StageWork, steps: int) -> list[Outcome]:
    """A whole call: prepared, committed, so many steps, finished, dropped."""
    job = str(call.call.ref)
    key = f"jobs/{call.call.ref.job_id}/work/result.safetensors"
    steps_of = [commands.Step(job)] * steps
    end = [commands.Finish(job, key), commands.Drop(job)]
    return tell(state, config, [commands.Prepare(job, call), commands.Commit(job), *steps_of, *end])


def without_disk(state: dict[Any, Any], config: Config, call: StageWork, root: Path) -> list[Outcome]:
    """The same where rank 0 cannot write what it has made, and afterwards a step of another run."""
    job = str(call.call.ref)
    answers = tell(state, config, [commands.Prepare(job, call), commands.Commit(job)])
    if state["rank"] == 0:
        root.mkdir(parents=True, exist_ok=True)
        (root / "outputs").write_text("a file where the folder should be")
    steps = [commands.Step(job)] * 7
    return [*answers, *tell(state, config, [*steps, commands.Finish(job, "unused"), commands.Drop(job)])]
