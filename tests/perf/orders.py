"""What it costs that a controller orders every step of a group's ranks: against a command that does nothing.

A rank's own time for a step is the answer's time less that of an empty command, which goes the same way to the same
ranks; a step "by the controller" is a long job's time divided by its steps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from deployments.group.commands import Command, Commit, Drop, Load, Prepare, Step
from deployments.group.remote import RayRanks
from tests.unit.deployments.group.jobs import Works, config

EMPTY = 100
STEPS = 60
LENGTHS = (1, 5, 10)  # seconds of video
FPS = 24


async def orders(folder: Path) -> Iterator[list[str]]:
    """Cells of one row per length: ms of an empty command, of a step, by the controller; the controller's share."""
    works = Works(config(folder / "tiny-r2v", folder / "group", ranks=2))
    spent = await _bare(works)
    controller = works.controller(RayRanks(works.config, works.pool))
    await controller.start()
    rows = []
    for seconds in LENGTHS:
        long = {"duration_s": seconds, "frames": FPS * seconds + 1, "steps": STEPS}
        await controller.run(await works.call(f"warm-{seconds}", **(long | {"steps": 4})))
        call = await works.call(f"long-{seconds}", **long)
        began = time.perf_counter()
        await controller.run(call)
        by_controller_ms = (time.perf_counter() - began) * 1e3 / STEPS
        rank_ms = spent[f"{seconds}"] - spent["empty"]
        cells = [spent["empty"], rank_ms, by_controller_ms]
        rows.append([f"{seconds} s", *(f"{ms:.2f}" for ms in cells), f"{by_controller_ms / rank_ms:.2f}"])
    await controller.close()
    return iter(rows)


async def _bare(works: Works) -> dict[str, float]:
    """Median milliseconds of an empty command, and of a step by the video's seconds, without a controller."""
    ranks, numbers = RayRanks(works.config, works.pool), count(1)

    async def order(command: Command) -> float:
        began = time.perf_counter()
        await ranks.call(next(numbers), command)
        return (time.perf_counter() - began) * 1e3

    await ranks.start(lambda: None)
    await order(Load(works.config.models[0].name))
    spent = {"empty": statistics.median([await order(Drop("nobody")) for _ in range(EMPTY)])}
    for seconds in LENGTHS:
        call = await works.call(f"bare-{seconds}", duration_s=seconds, frames=FPS * seconds + 1, steps=STEPS)
        await order(Prepare("bare", call.work))
        await order(Commit("bare"))
        steps = [await order(Step("bare")) for _ in range(STEPS)]
        spent[f"{seconds}"] = statistics.median(steps[2:])
        await order(Drop("bare"))
    await ranks.stop()
    return spent
