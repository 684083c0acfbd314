"""One configuration, one file: a YAML profile becomes a `Config`; everything else is generated from it.

An unknown key is an error that names its path. Environment variables carry secrets and the config's path, nothing
else. `profile("laptop")` is a shipped file under `cluster/profiles/`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cluster.canonical import sizes
from cluster.chart.installation import Installation
from cluster.errors import ConfigError
from cluster.plans import VAE_STRIDE_S
from cluster.policy.autoscale import BACKLOG_S
from cluster.pools import DENOISE, VAE_STAGES, Count, Label, LabelRule, LabelValue, Pool, Positive
from cluster.registry import MODELS, PRICES, Model, Price, PriceTable, Registry, tiny
from cluster.tenancy import Limits
from cluster.wiring import PROMPT, STAGES


def _off(value: object) -> object:
    """YAML reads a bare `off` as false."""
    return "off" if value is False else value


SERVICES = frozenset({"Api", "Scheduler", "Courier"})  # the deployments beside the pools


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServedModel(_Section):
    """One model and where its weights are. `tiny: true` = toy weights written by `skyreels checkpoints write-tiny`."""

    name: str
    checkpoint: str = Field(description="directory, or hub id when it holds no such directory")
    revision: str | None = None
    base: str | None = Field(
        default=None, description="the same of its text encoders and VAE, where the checkpoint is the transformer alone"
    )
    base_revision: str | None = None
    tiny: bool = False

    @property
    def encoders(self) -> tuple[str, str | None]:
        """Where text encoders and VAE are, and their revision."""
        return (self.checkpoint, self.revision) if self.base is None else (self.base, self.base_revision)

    def row(self) -> Model:
        model = MODELS[self.name]
        return tiny(model) if self.tiny else model


class Store(_Section):
    """The job store. The default is an SQLite file in the state directory."""

    url: str | None = Field(default=None, repr=False, description="may hold a password; PGPASSWORD keeps it out")


class Artifacts(_Section):
    """Where files lie: a local directory, s3://bucket/prefix or gs://bucket/prefix. Credentials never stand here."""

    root: str | None = None
    keep_s: Positive = 24 * 3600.0
    region: str = "us-east-1"
    endpoint: str | None = Field(default=None, pattern=r"^[^/@\s]+$", description="host:port of another S3 than AWS's")
    scheme: Literal["https", "http"] = "https"
    connect_timeout_s: Positive = 5.0
    request_timeout_s: Positive = 20.0
    max_attempts: Count = Field(default=4, description="of one request to the object store")
    redirect: bool = Field(
        default=True, description="content is fetched from S3 by a signed URL; false: through the Api"
    )
    redirect_s: Annotated[int, Field(ge=10, le=3600)] = Field(default=300, description="how long a signed URL is good")


class Cache(_Section):
    """Encodings of texts, sounds and images, kept for the next request with the same input."""

    enabled: bool = True
    memory_nbytes: Annotated[int, Field(ge=0)] = Field(default=256 * 2**20, description="in each replica")
    store_nbytes: Annotated[int, Field(ge=0)] = Field(default=4 * 2**30, description="among the artifacts; 0 = none")
    keep_s: Positive = Field(default=24 * 3600.0, description="among the artifacts, at most")


class Prompt(_Section):
    """The chat model that extends prompts, where a pool hosts the stage `prompt`."""

    checkpoint: str | None = Field(default=None, description="directory or hub id, as Qwen/Qwen2.5-32B-Instruct")
    revision: str | None = None
    tiny: bool = Field(default=False, description="toy weights, written where they are expected")
    backend: Literal["transformers", "vllm"] = "transformers"
    tensor_parallel: Count = Field(default=1, description="GPUs of a replica that share each layer, with vllm")
    memory_share: Annotated[float, Field(gt=0, le=1)] = Field(default=0.9, description="of each GPU, with vllm")
    cache_nbytes: Count = Field(default=2**28, description="of vllm's keys and values, without a GPU")
    window: Count = Field(default=8192, description="tokens of question and answer together")
    max_tokens: Count = Field(default=512, description="of an answer")
    temperature: Annotated[float, Field(ge=0, le=2)] = Field(
        default=0.0, description="0: the likeliest words, whatever the seed; above: draws that follow the job's seed"
    )

    @model_validator(mode="after")
    def _shared(self) -> Self:
        if self.tensor_parallel > 1 and self.backend != "vllm":
            raise ValueError("tensor_parallel: only the backend vllm shares layers among GPUs")
        return self


class Files(_Section):
    """Files that clients upload to use in their requests."""

    max_nbytes: Count = 60 * 2**20
    max_duration_s: Positive = 600.0
    keep_s: Positive = 30 * 24 * 3600.0


class MediaLimits(_Section):
    """Bounds on what a client may send, checked before anything is decoded."""

    max_body_nbytes: Count = 64 * 2**20
    max_file_nbytes: Count = 20 * 2**20
    max_image_pixels: Count = 40_000_000
    fetch_timeout_s: Positive = 20.0
    allow_hosts: tuple[str, ...] = Field(
        default=(), description="host:port pairs that may be fetched although they are internal"
    )


class Api(_Section):
    """The HTTP edge."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    replicas: Count = 1
    num_cpus: Positive = 0.1
    labels: dict[Label, LabelRule] = Field(default_factory=dict, description="of the nodes it may run on")
    max_streams: Count = Field(default=400, description="open event streams of one replica")
    public_url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")] | None = Field(
        default=None,
        description="address by which clients reach the server, for links; else each request's own, and host and port",
    )


class Deliveries(_Section):
    """Webhooks and uploads. They may reach the internal hosts that `media.allow_hosts` names."""

    replicas: Count = 1
    num_cpus: Positive = 0.1
    labels: dict[Label, LabelRule] = Field(default_factory=dict, description="of the nodes it may run on")
    concurrency: Count = Field(default=128, description="sends at once, of one replica")
    per_host: Count = Field(default=4, description="sends at once to one receiver, of one replica")
    timeout_s: Positive = Field(default=10.0, description="longest webhook, from name to answer")
    upload_timeout_s: Positive = 600.0
    max_attempts: Count = Field(default=12, description="then it is a dead letter")
    backoff_s: Positive = Field(default=2.0, description="after the first failure; doubled after each further one")
    backoff_max_s: Positive = 3600.0
    lease_s: Positive = Field(default=15.0, description="after so long another replica takes over from a dead one")
    poll_s: Positive = 0.5
    keep_s: Positive = Field(default=7 * 24 * 3600.0, description="dead letters and receipts, at most")
    secret_overlap_s: Positive = Field(default=24 * 3600.0, description="how long a rotated secret still signs")


class Scheduler(_Section):
    """Timing of the lease protocol."""

    poll_s: Positive = 0.5
    leader_ttl_s: Positive = 5.0
    lease_ttl_s: Positive = 10.0
    dispatch_ttl_s: Positive = 30.0
    heartbeat_s: Positive = 1.0
    verdict_s: Positive = 0.25
    max_failures: Count = 2
    max_losses: Count = 5
    num_cpus: Positive = 0.1
    labels: dict[Label, LabelRule] = Field(default_factory=dict, description="of the nodes it may run on")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.lease_ttl_s < 3 * self.heartbeat_s:
            raise ValueError("lease_ttl_s must be at least three heartbeats (heartbeat_s)")
        return self


class Denoise(_Section):
    """How the denoiser works."""

    snapshot_s: Positive = Field(default=30.0, description="work between two snapshots of a job")
    attention: str = "auto"
    loaded: Count = Field(default=1, description="models whose weights a group keeps at once; others are exchanged")
    host_nbytes: Annotated[int, Field(ge=0)] = Field(
        default=0, description="weights that had to make room wait in this much of each rank's host memory"
    )
    load_timeout_s: Positive = Field(default=1800.0, description="longest start of the ranks, and longest load")
    step_timeout_s: Positive = Field(default=600.0, description="longest answer to any other command")
    step_floor_s: Positive = Field(default=10.0, description="a step is never called hung sooner, however short others")
    max_rebuilds: Count = Field(default=3, description="failed rebuilds in a row before the replica is replaced")


class Autoscale(_Section):
    """How pools with `min_replicas` and `max_replicas` are scaled. Bounds and delays stand in the pools."""

    backlog_s: Positive = Field(default=BACKLOG_S, description="as many replicas as do the present work within this")
    period_s: Positive = Field(default=1.0, description="between two readings of the job store")


class Tracing(_Section):
    """Spans of jobs by OTLP over HTTP. A collector's secret headers stand in OTEL_EXPORTER_OTLP_HEADERS."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = Field(
        default=None, description="where a collector takes traces, as http://collector:4318/v1/traces; unset: no spans"
    )
    sample: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0, description="share of the jobs that are traced; a caller's own traceparent decides for its jobs"
    )


class Ray(_Section):
    """The Ray cluster that `skyreels serve` starts on one machine."""

    num_cpus: Count = 8
    labels: dict[Label, LabelValue] = Field(default_factory=dict, description="what pools may ask of their nodes")
    object_store_nbytes: Count = 256 * 2**20
    dashboard_port: Annotated[int, Field(ge=1, le=65535)] = 8265
    metrics_port: Annotated[int, Field(ge=1, le=65535)] = 9464


class Config(_Section):
    """The whole system."""

    profile: str
    topology: Literal["monolith", "disaggregated"]
    state_dir: str = ".skyreels"
    models: tuple[ServedModel, ...] = Field(min_length=1)
    pools: tuple[Pool, ...] = Field(min_length=1)
    store: Store = Store()
    artifacts: Artifacts = Artifacts()
    files: Files = Files()
    cache: Cache = Cache()
    prompt: Prompt = Prompt()
    media: MediaLimits = MediaLimits()
    api: Api = Api()
    delivery: Deliveries = Deliveries()
    scheduler: Scheduler = Scheduler()
    denoise: Denoise = Denoise()
    autoscale: Autoscale = Autoscale()
    tracing: Tracing = Tracing()
    ray: Ray = Ray()
    kubernetes: Installation = Field(default=Installation(), description="the chart's values beside the Serve config")
    auth: Annotated[Literal["off", "keys"], BeforeValidator(_off)] = Field(
        default="off", description="off: whoever reaches the Api may use it, as one tenant"
    )
    tenant: str = Field(default="default", description="who owns jobs while authentication is off")
    limits: Limits = Limits()
    prices: dict[str, tuple[Price, ...]] = Field(
        default_factory=dict, description="model → prices instead of the shipped ones; the first that fits counts"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for served in self.models:
            if served.name not in MODELS:
                raise ValueError(f"models: {served.name!r} is unknown; known: {', '.join(MODELS)}")
        needed = set().union(*(STAGES[MODELS[served.name].graph] for served in self.models))
        hosted = [stage for pool in self.pools for stage in pool.stages]
        if missing := needed - set(hosted):
            raise ValueError(f"pools: no pool hosts {', '.join(sorted(missing))}")
        if len(hosted) != len(set(hosted)):
            raise ValueError("pools: a stage is hosted by more than one pool")
        if unknown := set(self.prices) - set(PRICES):
            raise ValueError(f"prices: {', '.join(sorted(unknown))} is unknown; known: {', '.join(PRICES)}")
        if self.topology == "monolith" and len(self.pools) != 1:
            raise ValueError("pools: topology monolith has exactly one pool")
        if len({pool.name for pool in self.pools} | SERVICES) != len(self.pools) + len(SERVICES):
            raise ValueError(f"pools: names must be unique and not {', '.join(sorted(SERVICES))}")
        self._check_heights()
        self._check_heads()
        self._check_prompt()
        return self

    def _check_prompt(self) -> None:
        """The stage that extends prompts and its model go together. ValueError."""
        pool = next((pool for pool in self.pools if PROMPT in pool.stages), None)
        if pool is None and self.prompt.checkpoint is not None:
            raise ValueError(f"prompt.checkpoint: no pool hosts the stage {PROMPT}; add it to one, or leave this out")
        if pool is not None and self.prompt.checkpoint is None:
            raise ValueError(f"prompt.checkpoint: {pool.name} hosts the stage {PROMPT}, so a chat model must be named")
        if pool is not None and 0 < pool.num_gpus < self.prompt.tensor_parallel:
            needed = self.prompt.tensor_parallel
            raise ValueError(f"pools: {pool.name} has {pool.num_gpus:g} GPUs; prompt.tensor_parallel needs {needed}")

    def _check_heights(self) -> None:
        """Ranks of a VAE hold a band of every picture each, at least one latent row. ValueError."""
        heights = {height for model in self.registry.models.values() for height, _ in sizes(model)}
        rows = min(heights) // VAE_STRIDE_S
        whole = [
            model.name
            for model in self.registry.models.values()
            if model.graph in {"i2v", "df"} or model.family == "hunyuan"
        ]
        for pool in self.pools:
            if set(pool.grouped) & set(VAE_STAGES) and whole:
                raise ValueError(
                    f"pools: {pool.name} shares the VAE among ranks, which does not work for {', '.join(whole)} yet; "
                    "use replicas, or serve other models"
                )
            if set(pool.grouped) & set(VAE_STAGES) and pool.ranks > rows:
                raise ValueError(
                    f"pools: {pool.name} cannot share the VAE among {pool.ranks} ranks because the lowest picture "
                    f"that is served has {rows} latent rows; use at most {rows}"
                )

    def _check_heads(self) -> None:
        """Ulysses gives every rank equally many heads. ValueError."""
        for pool in self.pools:
            for model in self.registry.models.values():
                ulysses = pool.ulysses_of(model.heads) if DENOISE in pool.grouped and model.heads else 1
                if model.heads and model.heads % ulysses:
                    raise ValueError(
                        f"pools: {pool.name} cannot share the {model.heads} attention heads of {model.name} among "
                        f"{ulysses} Ulysses ranks; choose a factor that divides them and leave the rest to ring"
                    )

    @property
    def served(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(model.name for model in self.models)

    @property
    def stages(self) -> tuple[str, ...]:
        """Those that any pool hosts."""
        return tuple(stage for pool in self.pools for stage in pool.stages)

    @property
    def registry(self) -> Registry:
        return Registry(served.row() for served in self.models)

    @property
    def extends_prompts(self) -> bool:
        """Whether prompts can be extended here."""
        return any(PROMPT in pool.stages for pool in self.pools)

    @property
    def url(self) -> str:
        """By which clients reach the server, as far as the configuration knows."""
        return (self.api.public_url or f"http://{self.api.host}:{self.api.port}").rstrip("/")

    @property
    def price_table(self) -> PriceTable:
        return PriceTable({**PRICES, **self.prices})

    @property
    def state_path(self) -> Path:
        return Path(self.state_dir).absolute()

    @property
    def store_url(self) -> str:
        return self.store.url or f"sqlite+aiosqlite:///{self.state_path / 'jobs.db'}"

    @property
    def artifacts_root(self) -> str:
        return self.artifacts.root or str(self.state_path / "artifacts")


def parse(text: str, where: str) -> Config:
    """A Config from YAML text.

    Raises:
        ConfigError: not YAML, or a key is unknown, missing or out of range; one line per key, with its path.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {error}") from error
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, e['loc'])) or 'config'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{where}: " + "; ".join(lines)) from error


def load(path: str | Path) -> Config:
    """A Config from a file. ConfigError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error.strerror}.") from error
    return parse(text, str(path))


def profile(name: str) -> Config:
    """A shipped profile by name. ConfigError."""
    source = resources.files("cluster") / "profiles" / f"{name}.yaml"
    if not source.is_file():
        raise ConfigError(f"Profile {name!r} does not exist; shipped profiles: {', '.join(profiles())}.")
    return parse(source.read_text(encoding="utf-8"), f"profile {name}")


def profiles() -> tuple[str, ...]:
    """Names of the shipped profiles."""
    folder = resources.files("cluster") / "profiles"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))
