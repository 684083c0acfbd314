"""Models, health, state, metrics and the OpenAPI page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.unit.cluster.makers import worker
from tests.unit.deployments.api.conftest import Edge, open_edge
from tests.unit.deployments.api.test_videos import body


async def test_models_tell_every_limit(edge: Edge) -> None:
    (model,) = (await edge.client.get("/v1/models")).json()["data"]
    assert (model["id"], model["object"]) == ("skyreels-v3-r2v", "model")
    assert model["resolutions"] == ["64P", "480P", "540P", "720P"]
    assert (model["min_seconds"], model["max_seconds"], model["max_images"]) == (1, 10, 4)
    assert model["max_results"] == 4


async def test_state_and_metrics_count_jobs(edge: Edge) -> None:
    await edge.client.post("/v1/videos", json=body())
    report = (await edge.client.get("/v1/status")).json()
    assert report["jobs"]["queued"] == 1
    assert report["ready"] == {"condition": 1, "text": 1}
    text = (await edge.client.get("/metrics")).text
    assert 'skyreels_jobs{state="queued"} 1.0' in text
    assert 'skyreels_stage_ready{stage="text"} 1.0' in text


async def test_health_follows_the_store(edge: Edge) -> None:
    assert (await edge.client.get("/healthz")).status_code == 200


async def test_openapi_describes_both_bodies(edge: Edge) -> None:
    document = (await edge.client.get("/openapi.json")).json()
    content = document["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}


async def test_a_model_is_found_by_each_of_its_names(edge: Edge) -> None:
    (listed,) = (await edge.client.get("/v1/models")).json()["data"]
    assert listed["addresses"] == {
        "openai": "skyreels-v3-r2v",
        "wavespeed": "skywork-ai/skyreels-v3/reference-to-video",
        "runware": "skywork:skyreels-v3@r2v",
    }
    assert listed["prices"] == [{"per_second_usd": "0.04", "resolution": None, "workflow": None}]
    for name in ("skyreels-v3-r2v", "Skywork/SkyReels-V3-R2V-14B", *listed["addresses"].values()):
        assert (await edge.client.get(f"/v1/models/{name}")).json() == listed
    for name in ("skyreels-v4", "sora"):
        response = await edge.client.get(f"/v1/models/{name}")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"


async def test_openapi_has_every_dialect_with_its_parameters_and_refusals(edge: Edge) -> None:
    document = (await edge.client.get("/openapi.json")).json()
    paths = document["paths"]
    for path, refusal in (
        ("/api/v3/skywork-ai/skyreels-v3/reference-to-video", "code"),
        ("/api/v3/wavespeed-ai/SkyReels-V1", "code"),
        ("/runware/v1", "errors"),
    ):
        route = paths[path]["post"]
        assert {"200", "400", "413", "429", "503"} <= set(route["responses"]), path
        reference = route["responses"]["400"]["content"]["application/json"]["schema"]["$ref"]
        name = reference.rpartition("/")[2]
        assert refusal in document["components"]["schemas"][name]["properties"], path
    body = paths["/api/v3/skywork-ai/skyreels-v3/reference-to-video"]["post"]["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"prompt", "images", "aspect_ratio", "duration"}
    assert (schema["required"], schema["additionalProperties"]) == (["prompt", "images"], False)
    tasks = paths["/runware/v1"]["post"]["requestBody"]["content"]["application/json"]["schema"]["items"]["oneOf"]
    assert set(tasks[0]["properties"]) == {
        "taskType", "taskUUID", "model", "positivePrompt", "outputType", "outputFormat", "outputQuality", "webhookURL",
        "deliveryMethod", "uploadEndpoint", "safety", "ttl", "includeCost", "inputs", "numberResults", "width",
        "height", "resolution", "duration", "settings",
    }  # fmt: skip
    assert "/api/v3/predictions/{prediction_id}/result" in paths


async def test_scaled_pools_are_not_waited_for(tmp_path: Path) -> None:
    """They start when there is work, which only an edge that is ready lets in."""
    async with open_edge(tmp_path) as edge:
        assert (await edge.client.get("/readyz")).status_code == 503
        (pool,) = edge.config.pools
        fixed = pool.model_copy(update={"name": "Fixed", "stages": ("text",)})
        scaled = pool.model_copy(update={"stages": pool.stages[1:], "min_replicas": 0, "max_replicas": 2})
        edge.app.state.services = replace(
            edge.app.state.services, config=edge.config.model_copy(update={"pools": (fixed, scaled)})
        )
        assert (await edge.client.get("/readyz")).status_code == 503
        await edge.store.register(worker("w1", text=1))
        assert (await edge.client.get("/readyz")).status_code == 200
