"""What cannot work is refused before anything is installed, in words, and all of it at once."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
from helm_python import HelmError

from tests.unit.helm.engine import CHART, merged, rayservice, render, values_of

DISAGG, USP16, DEV = "disagg-h200-l40s", "multi-host-usp16", "dev-cpu"
GROUP = {"order": 50, "cpus": 1}


def deployment(values: dict[str, Any], name: str) -> dict[str, Any]:
    (application,) = values["serve"]["config"]["applications"]
    found: dict[str, Any] = next(one for one in application["deployments"] if one["name"] == name)
    return found


def serve(profile: str, name: str, **changes: Any) -> dict[str, Any]:
    """Values of a profile in whose Serve config a deployment is changed."""
    values = values_of(profile)
    found = deployment(values, name)
    found.update(merged(found, changes))
    return values


def pool(profile: str, name: str, **changes: Any) -> dict[str, Any]:
    """Values of a profile in whose arguments a pool of the configuration is changed."""
    values = values_of(profile)
    (application,) = values["serve"]["config"]["applications"]
    next(one for one in application["args"]["pools"] if one["name"] == name).update(changes)
    return values


def args(profile: str, **changes: Any) -> dict[str, Any]:
    values = values_of(profile)
    (application,) = values["serve"]["config"]["applications"]
    application["args"] = merged(application["args"], changes)
    return values


def at(profile: str, **changes: Any) -> dict[str, Any]:
    return values_of(profile, changes)


def listening(host: str, port: int) -> dict[str, Any]:
    return at(DISAGG, serve={"config": {"http_options": {"host": host, "port": port}}})


INCREMENTAL = {"strategy": "Incremental", "incremental": {"gatewayClassName": "istio"}}
LONG = "a-name-that-is-longer-than-a-ray-service-s-may-be"
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "long name": (at(DEV, fullnameOverride=LONG), r"has 49 characters; KubeRay takes at most 47"),
    "odd name": (at(DEV, fullnameOverride="Video"), r'"Video" must be lower case'),
    "no Serve config": ({}, r"serve\.config is empty: install with a profile"),
    "no groups": ({**values_of(DEV), "pools": {}}, "pools is empty"),
    "groups removed": (at(DEV, pools=None), "pools is empty"),
    "too many groups for Kueue": (
        at(DEV, kueue={"queueName": "q"}, pools={f"g{n}": {**GROUP, "order": 50 + n} for n in range(17)}),
        "pools has 18 worker groups; Kueue takes at most 17",
    ),
    "long group": (at(DEV, pools={"g" * 31: GROUP}), "has 31 characters; at most 30"),
    "group called head": (at(DEV, pools={"head": GROUP}), r"pools\.head: its name is that of the head"),
    "same order": (at(DEV, pools={"zwei": {**GROUP, "order": 10}}), r"pools\.zwei: its order 10 is also that of all"),
    "bounds": (at(DISAGG, pools={"dit": {"min": 5}}), r"pools\.dit: min 5 is above max 4"),
    "GPUs of nothing": (at(DISAGG, pools={"edge": {"gpus": 1}}), r"pools\.edge: gpus needs an accelerator"),
    "unknown accelerator": (at(DISAGG, pools={"dit": {"accelerator": "b200"}}), '"b200" is not among accelerators'),
    "pod above the node": (at(DISAGG, pools={"dit": {"gpus": 16}}), "16 GPUs fits on no node of h200, which has 8"),
    "part of a node": (at(USP16, pools={"dit": {"gpus": 4}}), "whole nodes, so gpus must be 8, not 4"),
    "hosts without GPUs": (at(DISAGG, pools={"edge": {"hostsPerReplica": 2}}), r"pools\.edge: hostsPerReplica above 1"),
    "fabric of one host": (at(DISAGG, pools={"dit": {"fabricTopologyKey": "rack"}}), "but it has only one"),
    "budget above the minimum": (
        at(DISAGG, pools={"dit": {"pdb": {"enabled": True, "minAvailable": 2}}}),
        r"pools\.dit: pdb\.minAvailable is above the number of pods that are ready at min",
    ),
    "budget of hosts that are never ready": (
        at(USP16, pools={"dit": {"pdb": {"enabled": True, "minAvailable": 2}}}),
        "that are ready at min, one of each replica",
    ),
    "token of an old Ray": (at(DEV, ray={"version": "2.51.0"}), r"authToken needs Ray 2\.52 or newer"),
    "namespace in Redis": (
        at(DISAGG, ray={"gcsFaultTolerance": {"externalStorageNamespace": "skyreels"}}),
        r"externalStorageNamespace must be empty: during an upgrade two clusters would share",
    ),
    "no Redis": (at(DISAGG, ray={"gcsFaultTolerance": {"redisAddress": None}}), "redisAddress is missing"),
    "Redis and rocksdb": (at(DISAGG, ray={"gcsFaultTolerance": {"backend": "rocksdb"}}), "but the backend is rocksdb"),
    "Redis by environment": (
        at(DISAGG, env=[{"name": "REDIS_PASSWORD", "value": "x"}]),
        "env: REDIS_PASSWORD is set by",
    ),
    "deletion before drain": (
        at(DISAGG, upgrade={"deletionDelaySeconds": 60}),
        r"deletionDelaySeconds 60 is below drain\.seconds 900",
    ),
    "no gateway class": (at(DISAGG, upgrade={"strategy": "Incremental"}), "gatewayClassName is missing"),
    "steps above the surge": (
        at(DISAGG, upgrade=merged(INCREMENTAL, {"incremental": {"stepSizePercent": 60, "maxSurgePercent": 50}})),
        r"1 <= stepSizePercent \(60\) <= maxSurgePercent \(50\) <= 100",
    ),
    "steps without autoscaler": (
        at(DISAGG, upgrade=INCREMENTAL, autoscaler={"enabled": False}),
        "needs autoscaler.enabled",
    ),
    "steps beside an Ingress": (
        at(DISAGG, upgrade=INCREMENTAL, ingress={"enabled": True, "host": "x"}),
        "makes a Gateway of its own and no stable Service",
    ),
    "no image of weights": (at(DISAGG, models={"source": "image"}), r"models\.image\.reference is missing"),
    "image without digest": (
        at(DISAGG, models={"source": "image", "image": {"reference": "weights:1"}}),
        "must name a digest",
    ),
    "too many downloads": (
        at(DISAGG, models={"source": "initDownload"}, pools={"dit": {"max": 8}}),
        "each of up to 8 pods of dit download all weights",
    ),
    "nothing to download": (at(DEV, models={"items": []}), r"needs models\.items"),
    "Ingress without host": (at(DISAGG, ingress={"enabled": True}), r"ingress\.host is missing"),
    "route without gateway": (at(DISAGG, httpRoute={"enabled": True}), r"parentRefs is missing"),
    "open to the world": (
        at(DEV, ingress={"enabled": True, "host": "x"}),
        r"authentication is off, so whoever reaches the Ingress .* set site\.auth to keys",
    ),
    "loopback": (listening("127.0.0.1", 8000), r"listens on 127\.0\.0\.1:8000; KubeRay asks port 8000"),
    "another port": (listening("0.0.0.0", 9000), r"listens on 0\.0\.0\.0:9000"),
    "pool too small": (
        serve(DISAGG, "TextEncoder", num_replicas=2),
        r"pools\.encode: TextEncoder ask for up to 2 GPUs, but max 1 has only 1: raise max",
    ),
    "pool too small for the autoscaler": (
        serve(DISAGG, "Denoiser", autoscaling_config={"max_replicas": 5}),
        r"pools\.dit: Denoiser ask for up to 20 GPUs, but max 4 has only 16: raise max",
    ),
    "too few CPUs": (
        serve(DISAGG, "Api", num_replicas=9),
        r"pools\.edge: Api, Scheduler, Courier ask for up to 10 CPUs, but max 2 has only 8",
    ),
    "drain too short": (at(DISAGG, drain={"seconds": 60}), r"drain\.seconds 60 is below the 300 s that Denoiser takes"),
    "nowhere to run": (
        serve(DISAGG, "TextEncoder", ray_actor_options={"label_selector": {"skyreels.ai/pool": "text"}}),
        r'TextEncoder asks for worker group "text", which pools does not have: it would wait for ever',
    ),
    "hosts of a group": (at(USP16, pools={"dit": {"hostsPerReplica": 4, "max": 1}}), r"set hostsPerReplica 2"),
    "GPUs of a host": (
        serve(USP16, "Denoiser", placement_group_bundles=[{"CPU": 8, "GPU": 4}] * 2),
        r"Denoiser needs 4 GPUs and 8 CPUs of each node, but a pod of pools\.dit has 8 and 64",
    ),
    "one node's work on several": (
        serve(USP16, "Denoiser", placement_group_strategy="STRICT_PACK"),
        r"Denoiser works on one node, but replicas of pools\.dit are 2 nodes",
    ),
    "replica above the pod": (
        at(DISAGG, pools={"dit": {"gpus": 2, "max": 8}}),
        r"a replica of Denoiser needs 4 GPUs and 16\.1 CPUs in one pod, but a pod of pools\.dit has 2 and 32",
    ),
    "Ulysses and ranks": (pool(USP16, "Denoiser", ulysses=5), "Ulysses 5 does not divide the 16 ranks of a group"),
    "Ulysses and heads": (
        pool(USP16, "Denoiser", ulysses=16, ring=1),
        r"Denoiser: Ulysses 16 does not divide the model's 40 attention heads: choose a factor",
    ),
    "Ulysses and heads, by ring": (
        pool(USP16, "Denoiser", ulysses=None, ring=1),
        "Ulysses 16 does not divide the model's 40",
    ),
    "password in the URL": (
        at(DISAGG, site={"store": {"url": "postgresql+asyncpg://u:secret@db/x"}}),
        r"store\.url holds a password",
    ),
    "file as a store": (
        args(DISAGG, store={"url": None}),
        r"the job store is a file, but up to 11 pods would share it",
    ),
    "folder for artifacts": (
        args(DISAGG, artifacts={"root": None}),
        r"artifacts lie in a local folder, but up to 11 pods would share it",
    ),
    "state elsewhere": (at(DEV, state={"path": "/data"}), r"state\.path /data is not the configuration's state_dir"),
}


@functools.cache
def refusal(name: str) -> str:
    values, _ = CASES[name]
    with pytest.raises(HelmError) as caught:
        render(values)
    return str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_words(name: str) -> None:
    assert re.search(CASES[name][1], refusal(name)), refusal(name)


VERSIONS_AND_APIS = ("does not offer", "matchLabelKeys", "by default from 1.35")  # in test_render


def test_every_guard_has_a_case() -> None:
    texts = "".join(path.read_text() for path in (CHART / "templates").glob("_validate*.tpl"))
    said = re.findall(r'"say" (?:\(printf )?"((?:[^"\\]|\\.)*)"', texts)
    said += re.findall(r'append \$say (?:\(printf )?"((?:[^"\\]|\\.)*)"', texts)
    assert len(said) > 45
    heard = "\n".join(refusal(name) for name in CASES)
    unheard = [
        one
        for one in said
        if one != "pools.%s: %s"
        and not any(part in one for part in VERSIONS_AND_APIS)
        and not re.search(re.sub("%[a-z]", ".*", re.escape(one)), heard)
    ]
    assert unheard == []


def test_all_of_it_is_told_at_once() -> None:
    with pytest.raises(HelmError, match=r"(?s)pools\.dit: min 5 is above max 4.*redisAddress is missing"):
        render(at(DISAGG, pools={"dit": {"min": 5}}, ray={"gcsFaultTolerance": {"redisAddress": None}}))


def test_a_site_may_mend_what_is_refused() -> None:
    open_to_all = at(DEV, ingress={"enabled": True, "host": "x"})
    assert rayservice(merged(open_to_all, {"site": {"auth": "keys"}}))
