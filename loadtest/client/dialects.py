"""Which APIs can be spoken, by the name on the command line."""

from __future__ import annotations

from collections.abc import Mapping

from loadtest.client.base import Dialect
from loadtest.client.openai import OpenAi, OpenAiEvents
from loadtest.client.peers import LightX2V, Sglang, VllmOmni
from loadtest.client.runware import Runware
from loadtest.client.wavespeed import WaveSpeed
from loadtest.mixes import Scenario, ScenarioError

DIALECTS: Mapping[str, type[Dialect]] = {
    dialect.name: dialect for dialect in (OpenAiEvents, OpenAi, WaveSpeed, Runware, VllmOmni, Sglang, LightX2V)
}


def check(dialect: Dialect, scenario: Scenario) -> None:
    """Refuses a scenario that the API cannot say in full, before anything is measured. ScenarioError."""
    for index, entry in enumerate(scenario.mix):
        if reason := dialect.unable(entry):
            raise ScenarioError(f"{scenario.name}: mix.{index} cannot be asked of {dialect.name}: {reason}.")
