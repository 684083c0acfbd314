from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluster.config import Config, load, parse, profile, profiles
from cluster.errors import ConfigError
from cluster.pools import Pool

BASE = {
    "profile": "test",
    "topology": "monolith",
    "models": [{"name": "skyreels-v3-r2v", "checkpoint": "/w", "tiny": True}],
    "pools": [{"name": "All", "stages": ["text", "condition", "denoise", "decode"]}],
}


def read(**changes: object) -> Config:
    return parse(yaml.safe_dump(BASE | changes), "test.yaml")


def test_shipped_profiles_are_valid() -> None:
    assert "laptop" in profiles()
    for name in profiles():
        assert profile(name).profile == name


def test_an_unknown_profile_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"'mainframe'.*laptop"):
        profile("mainframe")


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"speed": 1}, "speed"),
        ({"api": {"prot": 1}}, "api.prot"),
        ({"api": {"port": 0}}, "api.port"),
        ({"topology": "mesh"}, "topology"),
        ({"models": []}, "models"),
        ({"models": [{"name": "sora", "checkpoint": "/w"}]}, "models"),
        ({"models": [{"name": "skyreels-v3-r2v"}]}, "models.0.checkpoint"),
        ({"pools": [{"name": "All", "stages": ["paint"]}]}, "pools.0"),
        ({"pools": [{"name": "All", "stages": []}]}, "pools.0"),
        ({"pools": [{"name": "all", "stages": ["text"]}]}, "pools.0.name"),
        ({"pools": [{"name": "All", "stages": ["text"], "slots": {"decode": 2}}]}, "pools.0"),
        ({"scheduler": {"heartbeat_s": 4.0, "lease_ttl_s": 10.0}}, "lease_ttl_s"),
        ({"scheduler": {"poll_s": 0}}, "scheduler.poll_s"),
    ],
)
def test_an_error_names_the_key(changes: dict[str, object], path: str) -> None:
    with pytest.raises(ConfigError, match=rf"^test\.yaml: .*{path}"):
        read(**changes)


def _pool(name: str, *stages: str) -> dict[str, object]:
    return {"name": name, "stages": list(stages)}


@pytest.mark.parametrize(
    ("topology", "pools", "message"),
    [
        ("monolith", [_pool("A", "text", "condition", "denoise")], "no pool hosts decode"),
        ("monolith", [_pool("A", "text", "condition"), _pool("B", "denoise", "decode")], "exactly one pool"),
        (
            "disaggregated",
            [_pool("A", "text", "condition", "denoise", "decode"), _pool("B", "text")],
            "more than one pool",
        ),
        ("disaggregated", [_pool("A", "text", "condition"), _pool("A", "denoise", "decode")], "unique"),
        ("disaggregated", [_pool("Api", "text", "condition", "denoise", "decode")], "not Api"),
    ],
)
def test_pools_host_every_stage_once(topology: str, pools: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(topology=topology, pools=pools)


def test_slots_default_to_one() -> None:
    pool = read(pools=[_pool("All", "text", "condition", "denoise", "decode") | {"slots": {"text": 3}}]).pools[0]
    assert (pool.slots_of("text"), pool.slots_of("decode")) == (3, 1)


def _denoiser(**fields: object) -> dict[str, object]:
    return _pool("All", "text", "condition", "denoise", "decode") | fields


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (_denoiser(ranks=0), "pools.0.ranks"),
        (_denoiser(residents=0), "pools.0.residents"),
        (_denoiser(ranks=4, ulysses=2, ring=1), "ulysses × ring must be the number of ranks, which is 4"),
        (_denoiser(ranks=4, ulysses=3), "ulysses × ring"),
        (_denoiser(ulysses=2), "ulysses × ring"),
        (_denoiser(slots={"denoise": 3}), "set by residents"),
        (
            _pool("A", "text") | {"ranks": 2},
            "can be shared, and text with parallel deepspeed-tp",
        ),
        (_pool("A", "condition", "decode") | {"ranks": 2, "ulysses": 2}, "ulysses: only a pool that hosts denoise"),
        (_pool("A", "condition", "decode") | {"ranks": 2, "branches": 2}, "branches: only a pool that hosts denoise"),
        (_denoiser(ranks=2, branches=3), r"branches × ulysses × ring must be the number of ranks, which is 2"),
        (_denoiser(ranks=4, branches=2, ulysses=2, ring=2), "which is 4; got 2 × 2 × 2"),
        (_denoiser(ranks=4, branches=4), "a guided step has 3, so 4 groups would never be filled"),
        (_denoiser(ranks=2, engine="flash"), "pools.0.engine"),
        (_denoiser(ranks=2, engine="xfuser"), "xfuser has kernels for forwards that several GPUs share; set num_gpus"),
        (_denoiser(ranks=2, num_gpus=0.5), "two ranks could land on one GPU"),
        (_denoiser(num_gpus=1, engine="yunchang"), "set num_gpus and ranks, or engine torch"),
        (_denoiser(labels={"-a": "b"}), "pools.0.labels"),
        (_denoiser(labels={"a": "b c"}), "pools.0.labels"),
        (_pool("A", "text") | {"residents": 1}, "only a pool that hosts denoise"),
        (_pool("A", "text", "decode") | {"parallel": "deepspeed-tp", "ranks": 2}, "hosts text alone, with 2 or more"),
        (_pool("A", "text") | {"parallel": "deepspeed-tp"}, "hosts text alone, with 2 or more"),
        (_pool("A", "text") | {"parallel": "zero-offload", "llama": "vllm"}, "needs llama transformers"),
        (_pool("A", "decode") | {"parallel": "zero-offload"}, "hosts text, with one rank"),
        (_pool("A", "decode") | {"llama": "vllm"}, "llama: only a pool that hosts text has a language model"),
        (_denoiser(ranks=4, hosts=2), "only a pool whose ranks do all its work can span several nodes"),
        (_pool("A", "denoise") | {"ranks": 4, "hosts": 3}, "4 ranks cannot be spread evenly over 3 nodes"),
    ],
)
def test_impossible_groups_are_refused_in_words(pool: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(pools=[pool])


def test_encoders_are_the_checkpoints_own_or_those_of_its_base() -> None:
    row = {"name": "skyreels-v1-i2v", "checkpoint": "a/dit", "revision": "1"}
    models = [row, row | {"base": "b/hunyuan", "base_revision": "2"}]
    assert [served.encoders for served in read(models=models).models] == [("a/dit", "1"), ("b/hunyuan", "2")]


def test_a_vae_that_cannot_be_shared_is_refused() -> None:
    pools = [_pool("A", "text"), _pool("B", "denoise"), _pool("C", "condition", "decode") | {"ranks": 2}]
    with pytest.raises(ConfigError, match="which does not work for skyreels-v1-t2v yet"):
        read(models=[{"name": "skyreels-v1-t2v", "checkpoint": "x"}], topology="disaggregated", pools=pools)


@pytest.mark.parametrize(
    "fields",
    [
        {"ranks": 4},
        {"ranks": 4, "ring": 2},
        {"ranks": 6, "ulysses": 3, "ring": 2},
        {"ranks": 2, "branches": 2},
        {"ranks": 6, "branches": 3, "ulysses": 2},
        {"ranks": 8, "num_gpus": 1, "engine": "xfuser", "branches": 2, "ring": 2},
        {"labels": {"skyreels.ai/pool": "dit", "ray.io/accelerator-type": "in(H200, B200)", "spot": "!yes"}},
    ],
)
def test_possible_groups(fields: dict[str, object]) -> None:
    pool = read(pools=[_denoiser(**fields)]).pools[0]
    assert pool.slots_of("denoise") == 2
    assert not pool.controls_only


def test_a_replica_that_hosts_only_shared_denoising_computes_nothing() -> None:
    laptop = {pool.name: pool for pool in profile("laptop").pools}
    assert laptop["Denoiser"].controls_only
    assert not laptop["VaeRoom"].controls_only
    assert not profile("monolith").pools[0].controls_only


RELEASED = [{"name": "skyreels-v3-r2v", "checkpoint": "/w"}]


@pytest.mark.parametrize("layout", [{"ulysses": 16}, {"ring": 1}])
def test_ulysses_divides_the_heads_of_a_released_model(layout: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"share the 40 attention heads of skyreels-v3-r2v among 16 Ulysses ranks"):
        read(models=RELEASED, pools=[_denoiser(ranks=16, **layout)])


@pytest.mark.parametrize("layout", [{}, {"ulysses": 8}, {"ring": 2}, {"ulysses": 8, "ring": 2}])
def test_ring_takes_what_the_heads_leave(layout: dict[str, int]) -> None:
    assert read(models=RELEASED, pools=[_denoiser(ranks=16, **layout)]).pools[0].ulysses_of(40) == 8


def test_ranks_have_bundles_of_their_own_or_their_hosts() -> None:
    one, two = (Pool(name="D", stages=("denoise",), ranks=4, hosts=hosts) for hosts in (1, 2))
    assert [one.bundle_of(rank) for rank in range(4)] == [1, 2, 3, 4]
    assert [two.bundle_of(rank) for rank in range(4)] == [0, 0, 1, 1]


def test_worker_groups_are_written_like_the_rest_and_checked() -> None:
    assert read(kubernetes={"pools": {"dit": {"hosts_per_replica": 2}}}).kubernetes.pools["dit"].hosts_per_replica == 2
    with pytest.raises(ConfigError, match=r"kubernetes\.pools\.dit\.hots"):
        read(kubernetes={"pools": {"dit": {"hots": 2}}})


def _vae_room(ranks: int, *stages: str) -> dict[str, object]:
    return {"pools": [_pool("A", "text", "denoise"), _pool("Vae", *stages) | {"ranks": ranks}]}


def test_ranks_of_a_pool_without_denoise_share_the_vae() -> None:
    config = read(topology="disaggregated", **_vae_room(3, "condition", "decode"))
    assert config.pools[1].grouped == ("condition", "decode")
    assert config.pools[1].controls_only
    assert config.pools[0].grouped == ()
    mixed = read(pools=[_denoiser(ranks=2)]).pools[0]
    assert mixed.grouped == ("denoise",)


def test_more_ranks_than_the_lowest_picture_has_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot share the VAE among 7 ranks .* has 6 latent rows; use at most 6"):
        read(topology="disaggregated", **_vae_room(7, "condition", "decode"))


def test_places_derive_from_the_state_directory() -> None:
    config = read(state_dir="/var/sky")
    assert config.store_url == "sqlite+aiosqlite:////var/sky/jobs.db"
    assert config.artifacts_root == "/var/sky/artifacts"
    named = read(store={"url": "sqlite+aiosqlite:////x.db"}, artifacts={"root": "/a"})
    assert (named.store_url, named.artifacts_root) == ("sqlite+aiosqlite:////x.db", "/a")


def test_a_tiny_model_gets_the_tiny_row() -> None:
    assert read().registry.find("skyreels-v3-r2v").limits.default_resolution == "64P"
    released = read(models=[{"name": "skyreels-v3-r2v", "checkpoint": "/w"}])
    assert "64P" not in released.registry.find("skyreels-v3-r2v").limits.resolutions


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        load(tmp_path / "gone.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not valid YAML"):
        load(broken)
    broken.write_text("just text")
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load(broken)


def test_the_servers_address_is_the_public_one_where_there_is_one() -> None:
    config = profile("laptop")
    assert config.url == "http://127.0.0.1:8000"
    public = config.api.model_copy(update={"public_url": "https://videos.example/"})
    assert config.model_copy(update={"api": public}).url == "https://videos.example"


STAGES = ["text", "condition", "denoise", "decode"]


def _sized(**fields: object) -> Config:
    return read(pools=[{"name": "All", "stages": STAGES, **fields}])


def test_a_pool_has_a_size_or_bounds() -> None:
    fixed, scaled = _sized(replicas=3).pools[0], _sized(min_replicas=0, max_replicas=4).pools[0]
    assert (fixed.autoscaled, fixed.least, fixed.most) == (False, 3, 3)
    assert (scaled.autoscaled, scaled.least, scaled.most) == (True, 0, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_replicas": 1}, "go together"),
        ({"max_replicas": 1}, "go together"),
        ({"min_replicas": 1, "max_replicas": 2, "replicas": 1}, "not both"),
        ({"min_replicas": 3, "max_replicas": 2}, "above max_replicas"),
        ({"min_replicas": 0, "max_replicas": 0}, "max_replicas"),
        ({"min_replicas": 0, "max_replicas": 1, "downscale_delay_s": -1}, "downscale_delay_s"),
    ],
)
def test_impossible_sizes_are_refused_in_words(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _sized(**fields)


def test_residents_take_turns_and_other_slots_do_not() -> None:
    pool = _sized(residents=3, slots={"text": 2}).pools[0]
    assert [pool.slots_of(stage) for stage in STAGES] == [2, 1, 3, 1]
    assert [pool.lanes_of(stage) for stage in STAGES] == [2, 1, 1, 1]


EXTENDING = [{"name": "All", "stages": ["prompt", "text", "condition", "denoise", "decode"]}]


def test_prompts_are_extended_where_a_pool_hosts_the_stage() -> None:
    assert not read().extends_prompts
    assert read(pools=EXTENDING, prompt={"checkpoint": "/w"}).extends_prompts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": {"checkpoint": "/w"}}, "no pool hosts the stage prompt"),
        ({"pools": EXTENDING}, "a chat model must be named"),
        ({"pools": EXTENDING, "prompt": {"checkpoint": "/w", "tensor_parallel": 2}}, "only the backend vllm"),
        (
            {
                "pools": [EXTENDING[0] | {"num_gpus": 1}],
                "prompt": {"checkpoint": "/w", "backend": "vllm", "tensor_parallel": 2},
            },
            "All has 1 GPUs; prompt.tensor_parallel needs 2",
        ),
        ({"pools": EXTENDING, "prompt": {"checkpoint": "/w", "backend": "ollama"}}, "prompt.backend"),
    ],
)
def test_an_extender_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(**changes)
