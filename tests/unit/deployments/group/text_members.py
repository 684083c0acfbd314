"""What members of a text group do in the tests. Every function takes the rank's state first."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from cluster.config import Config
from cluster.pools import Pool
from cluster.records import StageWork

with warnings.catch_warnings():  # a rank raises on every warning, third parties' at import too
    warnings.simplefilter("ignore")
    from deployments.group import commands
    from deployments.group.commands import Outcome
    from deployments.group.text_rank import TextMember

POOL = Pool(name="Text", stages=("text",), ranks=2, parallel="deepspeed-tp")


def load_library(state: dict[Any, Any]) -> None:
    """Takes tens of seconds on a busy machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("deepspeed")


def encode(state: dict[Any, Any], config: Config, work: StageWork, key: str) -> list[Outcome]:
    """The answers to a whole call."""
    orders = (
        commands.Load(work.request.model),
        commands.Prepare("job", work),
        commands.Commit("job"),
        commands.Step("job"),
        commands.Finish("job", key),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        member = TextMember(config, POOL, state["rank"])
        answers = [member.execute(number, order) for number, order in enumerate(orders, start=1)]
        member.close()
    return answers
