"""A pool: one Serve deployment, the stages it hosts, and how many processes share their work."""

from __future__ import annotations

from math import gcd
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster import wiring

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Delay = Annotated[float, Field(ge=0)]
DENOISE = "denoise"
VAE_STAGES = ("condition", "decode")
TEXT = "text"
BRANCHES = 3  # evaluations of the DiT that a guided step needs
Label = Annotated[
    str, Field(pattern=r"^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?/)?[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?$")
]
_VALUE = "[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
LabelValue = Annotated[str, Field(pattern=f"^{_VALUE}$")]
LabelRule = Annotated[str, Field(pattern=rf"^!?({_VALUE}|in\({_VALUE}(, ?{_VALUE})*\))$")]
STAGES = tuple(sorted({wiring.PROMPT}.union(*wiring.STAGES.values())))


class Pool(BaseModel):
    """One Serve deployment that hosts one or several stages.

    `num_cpus`, `num_gpus` and `threads` are those of each process that computes: the replica itself, and every rank
    where `ranks` is above 1. Ranks share denoising steps where the pool hosts them, else the VAE's work.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{0,30}$")]
    stages: tuple[str, ...]
    replicas: Count = Field(default=1, description="how many, where it is not scaled")
    min_replicas: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="with max_replicas: the pool is scaled with its work; 0 = none while there is nothing"
    )
    max_replicas: Count | None = None
    upscale_delay_s: Delay = Field(default=0.0, description="more must have been wanted so long; from none at once")
    downscale_delay_s: Delay = Field(default=600.0, description="fewer must have been wanted so long")
    slots: dict[str, int] = Field(default_factory=dict, description="stage → calls at once; 1 where not named")
    num_cpus: Positive = 1.0
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    threads: Count = 1
    drain_s: Positive = 60.0
    labels: dict[Label, LabelRule] = Field(
        default_factory=dict, description="Ray labels of the nodes it may run on: x, !x, in(x, y) or !in(x, y)"
    )
    ranks: Count = Field(
        default=1,
        description="processes that share a denoising step, else encode and decode; 1 = the replica itself",
    )
    hosts: Count = Field(default=1, description="nodes that the ranks of a group fill, whole ones if more than one")
    branches: Count = Field(default=1, description="groups of the ranks, each with its own branch of a guided step")
    ulysses: Count | None = Field(default=None, description="of a group; the largest that divides the heads if unset")
    ring: Count | None = Field(default=None, description="of a group; what Ulysses leaves if unset")
    engine: Literal["torch", "xfuser", "yunchang"] = Field(
        default="torch", description="whose attention kernels shared forwards use; all but torch need a GPU"
    )
    llama: Literal["transformers", "vllm"] = Field(
        default="transformers", description="whose code runs the language model of the stage text (SkyReels V1)"
    )
    parallel: Literal["none", "deepspeed-tp", "zero-offload"] = Field(
        default="none", description="of text encoders: layers shared among ranks, or weights kept in host memory"
    )
    residents: Count = Field(default=2, description="denoise calls at once, their steps interleaved")

    @model_validator(mode="after")
    def _known(self) -> Self:
        unknown = set(self.stages) - set(STAGES)
        if unknown or not self.stages:
            raise ValueError(f"stages must be some of {', '.join(STAGES)}; got {sorted(unknown) or 'none'}")
        if set(self.slots) - set(self.stages):
            raise ValueError("slots names a stage that this pool does not host")
        if self.llama != "transformers" and TEXT not in self.stages:
            raise ValueError(f"llama: only a pool that hosts text has a language model; got {self.llama}")
        return self

    @model_validator(mode="after")
    def _encoders(self) -> Self:
        """How text encoders compute."""
        if self.parallel == "none":
            return self
        if self.llama != "transformers":
            raise ValueError(f"parallel: {self.parallel} needs llama transformers; vllm computes in its own way")
        if self.parallel == "deepspeed-tp" and (set(self.stages) != {TEXT} or self.ranks < 2 or self.hosts > 1):
            raise ValueError("parallel: deepspeed-tp is of a pool that hosts text alone, with 2 or more ranks")
        if self.parallel == "zero-offload" and (TEXT not in self.stages or self.ranks > 1):
            raise ValueError("parallel: zero-offload is of a pool that hosts text, with one rank")
        return self

    @model_validator(mode="after")
    def _scale(self) -> Self:
        if (self.min_replicas is None) != (self.max_replicas is None):
            raise ValueError("min_replicas and max_replicas go together; give both, or replicas alone")
        if self.autoscaled and "replicas" in self.model_fields_set:
            raise ValueError("replicas: a pool has a fixed size or min_replicas and max_replicas, not both")
        if self.least > self.most:
            raise ValueError(f"min_replicas is {self.least}, which is above max_replicas, {self.most}")
        return self

    @model_validator(mode="after")
    def _group(self) -> Self:
        if self.ranks > 1 and 0 < self.num_gpus <= 0.5:
            raise ValueError("num_gpus: two ranks could land on one GPU, which NCCL refuses; give each more than 0.5")
        if DENOISE not in self.stages:
            names = ("branches", "engine", "residents", "ring", "ulysses")
            if given := [name for name in names if getattr(self, name) != type(self).model_fields[name].default]:
                raise ValueError(f"{', '.join(given)}: only a pool that hosts {DENOISE} has a denoiser group")
            if self.ranks > 1 and not self.grouped:
                raise ValueError(
                    f"ranks: only {DENOISE}, {' and '.join(VAE_STAGES)} can be shared, and {TEXT} with parallel "
                    "deepspeed-tp; use replicas"
                )
            return self
        if DENOISE in self.slots:
            raise ValueError(f"slots: those of {DENOISE} are set by residents")
        known = self.branches * (self.ulysses or 1) * (self.ring or 1)
        if self.ranks % known or (self.ulysses and self.ring and known != self.ranks):
            raise ValueError(
                f"branches × ulysses × ring must be the number of ranks, which is {self.ranks}; "
                f"got {self.branches} × {self.ulysses or 'any'} × {self.ring or 'any'}"
            )
        if self.branches > BRANCHES:
            raise ValueError(f"branches: a guided step has {BRANCHES}, so {self.branches} groups would never be filled")
        if self.engine != "torch" and (self.ranks == 1 or not self.num_gpus):
            raise ValueError(
                f"engine: {self.engine} has kernels for forwards that several GPUs share; set num_gpus and ranks, "
                "or engine torch"
            )
        return self

    @model_validator(mode="after")
    def _hosts(self) -> Self:
        if self.hosts > 1 and not self.controls_only:
            raise ValueError("hosts: only a pool whose ranks do all its work can span several nodes")
        if self.ranks % self.hosts:
            raise ValueError(f"hosts: {self.ranks} ranks cannot be spread evenly over {self.hosts} nodes")
        return self

    def slots_of(self, stage: str) -> int:
        return self.residents if stage == DENOISE else self.slots.get(stage, 1)

    def lanes_of(self, stage: str) -> int:
        """How many calls of a stage advance at full speed at once: residents take turns, step by step."""
        return 1 if stage == DENOISE else self.slots_of(stage)

    @property
    def autoscaled(self) -> bool:
        return self.max_replicas is not None

    @property
    def least(self) -> int:
        """Replicas at any time."""
        return self.replicas if self.min_replicas is None else self.min_replicas

    @property
    def most(self) -> int:
        """Replicas at most."""
        return self.replicas if self.max_replicas is None else self.max_replicas

    def devices_of(self, stage: str) -> int:
        """How many processes (each with its GPU, where there is one) a call of the stage computes on."""
        return self.ranks if stage in self.grouped else 1

    @property
    def grouped(self) -> tuple[str, ...]:
        """The stages whose work `ranks` processes share; none where a replica works alone."""
        if self.ranks == 1:
            return ()
        if self.parallel == "deepspeed-tp":
            return (TEXT,)
        return tuple(stage for stage in self.stages if stage in ((DENOISE,) if DENOISE in self.stages else VAE_STAGES))

    @property
    def controls_only(self) -> bool:
        """Whether the replica computes nothing itself: its ranks do, in processes of their own."""
        return set(self.stages) == set(self.grouped)

    def ulysses_of(self, heads: int) -> int:
        """The Ulysses factor of the pool's groups for a model of so many heads."""
        size = self.ranks // self.branches
        if self.ulysses is not None or self.ring is not None:
            return self.ulysses or size // (self.ring or 1)
        return gcd(size, heads)

    def bundle_of(self, rank: int) -> int:
        """The placement group's bundle of a rank: one of its own behind the replica's, or its host's."""
        return rank + 1 if self.hosts == 1 else rank // (self.ranks // self.hosts)
