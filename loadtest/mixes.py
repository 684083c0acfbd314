"""A scenario: what is asked for, by whom, and what counts as good enough. One YAML file, every key described here.

An unknown key is an error that names its path. Shares are weights: they need not add up to one.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cluster.registry import KNOWN
from loadtest.arrivals import Arrivals, Closed, Poisson, Positive

Weight = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class ScenarioError(Exception):
    """A scenario that cannot be read; the message names every wrong key."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entry(_Part):
    """One kind of request. The length of an avatar is its voice's."""

    model: str
    weight: Weight = 1.0
    resolutions: dict[str, Weight] = Field(min_length=1, description="family → weight")
    seconds: dict[Positive, Weight] = Field(min_length=1, description="length of the video → weight")
    results: dict[Count, Weight] = Field(default={1: 1.0}, description="results of one request (n) → weight")
    images: dict[Count, Weight] = Field(default={1: 1.0}, description="reference images → weight, where there are any")
    steps: Count | None = Field(
        default=None, description="denoising steps, for servers that take them; ours fixes them by checkpoint"
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.model not in KNOWN:
            raise ValueError(f"model {self.model!r} is unknown; known: {', '.join(KNOWN)}")
        return self


class Slo(_Part):
    """A class of callers and what they call in time: `latency_s` + `per_video_s` × seconds of video × results."""

    weight: Weight = 1.0
    latency_s: Positive
    per_video_s: Annotated[float, Field(ge=0)] = 0.0
    priority: Annotated[int, Field(ge=-10, le=10)] = 0

    def limit_s(self, video_s: float) -> float:
        """From the intended instant to the end."""
        return self.latency_s + self.per_video_s * video_s


class Cancels(_Part):
    """Callers that change their mind."""

    share: Share = 0.0
    after_s: Positive = Field(default=2.0, description="mean time from the intended instant, exponential")


class Retries(_Part):
    """What a refused caller (429 or 503) does. The wait it is told counts as its latency."""

    most: Annotated[int, Field(ge=0)] = Field(default=0, description="further tries; 0 takes a refusal as the answer")
    longest_s: Positive = Field(default=30.0, description="a longer Retry-After is not waited for")


class Hurt(_Part):
    """A process of a system on this machine that is hurt in a measurement."""

    at_s: Annotated[float, Field(ge=0)]
    kind: str = Field(description="a deployment such as VaeRoom or Scheduler, or rank")
    fault: Literal["kill", "stop"] = "kill"
    stop_s: Positive = Field(default=5.0, description="how long a stop lasts")


class Sweep(_Part):
    """Rates of a sweep: up by `factor` until attainment is below `target`, then bisection, then beyond."""

    from_hz: Positive = 0.25
    factor: Annotated[float, Field(gt=1)] = 1.6
    most_hz: Positive = 64.0
    target: Share = Field(default=0.9, description="attainment that counts as held")
    bisections: Annotated[int, Field(ge=0)] = 2
    beyond: tuple[Annotated[float, Field(gt=1)], ...] = Field(
        default=(1.5, 2.0), description="multiples of the knee that are measured last, to see the overload"
    )


class Scenario(_Part):
    """Everything about the traffic, nothing about the server."""

    name: str
    about: str
    mix: tuple[Entry, ...] = Field(min_length=1)
    arrivals: Arrivals = Poisson()
    rate_hz: Positive = Field(default=0.5, description="requests per second of `run`")
    seconds: Positive = Field(default=60.0, description="length of one measurement, warm-up included")
    warmup_s: Annotated[float, Field(ge=0)] = Field(default=10.0, description="requests due earlier are not counted")
    drain_s: Positive = Field(
        default=30.0, description="after the last request; what has not ended by then is cancelled and unfinished"
    )
    settle_s: Annotated[float, Field(ge=0)] = Field(
        default=2.0, description="quiet behind the last end: before the last scrape and the next measurement"
    )
    seeds: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1, description="one measurement each")
    slo: dict[str, Slo] = Field(min_length=1, description="name → class")
    tenants: dict[str, Weight] = Field(default={"default": 1.0}, description="name → weight; keys come by --keys")
    cancels: Cancels = Cancels()
    retries: Retries = Retries()
    download: bool = Field(default=False, description="the result is fetched, and its time counts")
    poll_s: Positive = Field(default=0.25, description="between two looks, where the server sends no events")
    sweep: Sweep = Sweep()
    hurts: tuple[Hurt, ...] = ()
    prompts: tuple[str, ...] = Field(
        default=("A red ball rolls over a grey floor", "A blue triangle spins in the wind"), min_length=1
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.warmup_s >= self.seconds:
            raise ValueError("warmup_s must be shorter than seconds")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: each seed once; the same again measures the same")
        return self

    @property
    def window_s(self) -> float:
        """The part of a measurement that counts."""
        return self.seconds - self.warmup_s

    @property
    def closed(self) -> Closed | None:
        """The callers, where they wait for their answers."""
        return self.arrivals if isinstance(self.arrivals, Closed) else None

    @property
    def models(self) -> tuple[str, ...]:
        """What must be served."""
        return tuple(dict.fromkeys(entry.model for entry in self.mix))


def parse(text: str, where: str) -> Scenario:
    """A Scenario from YAML text.

    Raises:
        ScenarioError: not YAML, or a key is unknown, missing or out of range.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScenarioError(f"{where} is not valid YAML: {error}") from error
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, e['loc'])) or 'scenario'}: {e['msg']}" for e in error.errors())
        raise ScenarioError(f"{where}: " + "; ".join(lines)) from error


def load(name: str) -> Scenario:
    """A shipped scenario by name, or a file by its path. ScenarioError."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        try:
            return parse(path.read_text(encoding="utf-8"), name)
        except OSError as error:
            raise ScenarioError(f"The scenario {name} cannot be read: {error.strerror}.") from error
    source = resources.files("loadtest") / "scenarios" / f"{name}.yaml"
    if not source.is_file():
        raise ScenarioError(f"Scenario {name!r} does not exist; shipped scenarios: {', '.join(shipped())}.")
    return parse(source.read_text(encoding="utf-8"), f"scenario {name}")


def shipped() -> tuple[str, ...]:
    """Names of the shipped scenarios."""
    folder = resources.files("loadtest") / "scenarios"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))
