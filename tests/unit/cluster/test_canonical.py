"""What a draft may say, and the complete request that becomes of it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from cluster.canonical import MAX_SEED, Draft, Given, canonical, check, sizes, word
from cluster.errors import InvalidRequest
from cluster.plans import floor16
from cluster.records import Container, Delivery, Dialect, Media, Output
from cluster.registry import KNOWN, MODELS, tiny

R2V = MODELS["skyreels-v3-r2v"]
V1 = KNOWN["skyreels-v1-i2v"]
DAY_S = 86400.0


def draft(**fields: Any) -> Draft:
    return Draft(**{"prompt": "a fox", "images": 1, **fields})


def media(width: int | None, height: int | None) -> Media:
    return Media("file:///in/a.png", "image/png", 10, "ab" * 32, width, height)


def delivery(dialect: Dialect = Dialect.OPENAI, **fields: Any) -> Delivery:
    return Delivery(dialect=dialect, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x" * 5120, "images": 4, "duration_s": 10, "seed": MAX_SEED, "n": 4},
        {"duration_s": 5, "seed": -1, "aspect_ratio": "1:1", "resolution": "480P"},
        {"size": (720, 1280), "deadline_s": 0.5, "negative_prompt": ""},
        {"output": Output(Container.WEBM, 20), "delivery": delivery(ttl_s=60.0)},
        {"output": Output(Container.MOV, 99)},
    ],
)
def test_what_is_at_a_limit_is_accepted(fields: dict[str, Any]) -> None:
    check(R2V, draft(**fields))


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"prompt": ""}, "prompt", "must not be empty"),
        ({"prompt": " \n\t"}, "prompt", "must not be empty"),
        ({"prompt": "x" * 5121}, "prompt", "has 5121 characters; skyreels-v3-r2v takes at most 5120"),
        ({"images": 0}, "images", "takes 1 to 4 reference images; got 0"),
        ({"images": 5}, "images", "takes 1 to 4 reference images; got 5"),
        ({"duration_s": 4}, "seconds", "seconds must be 5 to 10 for skyreels-v3-r2v; got 4"),
        ({"duration_s": 11}, "seconds", "got 11"),
        ({"n": 0}, "n", "n must be 1 to 4 for skyreels-v3-r2v; got 0"),
        ({"n": 5}, "n", "n must be 1 to 4"),
        ({"aspect_ratio": "21:9"}, "aspect_ratio", "must be one of 16:9, 9:16, 1:1, 4:3, 3:4; got '21:9'"),
        ({"resolution": "720p"}, "resolution", "must be one of 480P, 540P, 720P"),
        ({"resolution": "64P"}, "resolution", "must be one of 480P, 540P, 720P"),
        ({"seed": -2}, "seed", "-1 (random) or 0 to"),
        ({"seed": MAX_SEED + 1}, "seed", "-1 (random) or 0 to"),
        ({"negative_prompt": "blur"}, "negative_prompt", "has no negative prompt"),
        ({"deadline_s": 0.0}, "deadline_s", "above 0 seconds"),
        ({"output": Output(quality=19)}, "quality", "20 to 99; got 19"),
        ({"output": Output(quality=100)}, "quality", "20 to 99; got 100"),
        ({"delivery": delivery(ttl_s=59.9)}, "ttl", "at least 60 seconds; got 59.9"),
        ({"size": (720, 1281)}, "size", "size 1281x720 is not offered by skyreels-v3-r2v; common sizes: "),
        ({"size": (720, 1280), "resolution": "720P"}, "size", "not both"),
        ({"size": (720, 1280), "aspect_ratio": "16:9"}, "size", "not both"),
    ],
)
def test_refusals_name_the_field_and_what_it_may_be(fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(words)) as caught:
        check(R2V, draft(**fields))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("dialect", "fields", "param"),
    [
        (Dialect.WAVESPEED, {"duration_s": 11}, "duration"),
        (Dialect.WAVESPEED, {"prompt": ""}, "prompt"),
        (Dialect.RUNWARE, {"duration_s": 11}, "duration"),
        (Dialect.RUNWARE, {"prompt": ""}, "positivePrompt"),
        (Dialect.RUNWARE, {"n": 5}, "numberResults"),
        (Dialect.RUNWARE, {"images": 5}, "inputs.referenceImages"),
        (Dialect.RUNWARE, {"size": (1, 1)}, "width/height"),
        (Dialect.RUNWARE, {"output": Output(quality=1)}, "outputQuality"),
    ],
)
def test_refusals_speak_the_dialect_of_the_draft(dialect: Dialect, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(R2V, draft(delivery=delivery(dialect), **fields))
    assert caught.value.param == param
    assert param in caught.value.message or param == "inputs.referenceImages"


def test_every_dialect_has_words() -> None:
    assert {word(dialect, "aspect_ratio") for dialect in Dialect} == {"aspect_ratio"}


def test_a_guided_model_takes_a_negative_prompt() -> None:
    check(V1, draft(negative_prompt="blur"))


def test_sizes_are_whole_tokens_of_the_smallest_family_that_has_them() -> None:
    offered = sizes(tiny(R2V))
    assert all(floor16(side) == side for size in offered for side in size)
    assert (offered[64, 112], offered[480, 848], offered[720, 1280]) == ("64P", "480P", "720P")
    assert (64, 112) not in sizes(R2V)


@pytest.mark.parametrize(
    ("fields", "first", "expected"),
    [
        ({"size": (720, 1280)}, media(10, 10), (720, 1280, "720P")),
        ({"aspect_ratio": "9:16", "resolution": "480P"}, media(10, 10), (848, 480, "480P")),
        ({"aspect_ratio": "1:1"}, media(32, 18), (960, 960, "720P")),
        ({"resolution": "540P"}, media(32, 18), (544, 960, "540P")),
        ({}, media(18, 32), (1280, 720, "720P")),
    ],
)
def test_the_size_is_the_callers_or_by_the_first_image(
    fields: dict[str, Any], first: Media, expected: tuple[int, int, str]
) -> None:
    request = canonical(R2V, draft(images=2, **fields), Given((first, media(1, 100))), ttl_s=DAY_S)
    assert (request.height, request.width, request.resolution) == expected


def test_an_image_without_size_cannot_choose_it() -> None:
    with pytest.raises(InvalidRequest, match="no size"):
        canonical(R2V, draft(), Given((media(None, None),)), ttl_s=DAY_S)


def test_defaults_are_resolved_and_the_rest_is_carried() -> None:
    request = canonical(R2V, draft(), Given((media(32, 18),)), ttl_s=DAY_S)
    assert (request.model, request.duration_s, request.frames, request.fps) == ("skyreels-v3-r2v", 5, 121, 24)
    assert (request.steps, request.n, request.priority, request.deadline_s) == (8, 1, 0, None)
    assert request.delivery.ttl_s == DAY_S
    asked = draft(
        seed=9,
        n=3,
        priority=-2,
        deadline_s=60.0,
        output=Output(Container.WEBM, 40),
        delivery=delivery(Dialect.RUNWARE, webhook_url="https://w", task_id="t", include_cost=True),
    )
    request = canonical(R2V, asked, Given((media(32, 18),)), ttl_s=DAY_S)
    assert (request.seed, request.n, request.priority, request.deadline_s) == (9, 3, -2, 60.0)
    assert request.output == asked.output
    assert request.delivery == replace(asked.delivery, ttl_s=DAY_S)


def test_results_are_kept_for_less_when_the_caller_says_so() -> None:
    for asked, kept in ((60.0, 60.0), (2 * DAY_S, DAY_S)):
        request = canonical(R2V, draft(delivery=delivery(ttl_s=asked)), Given((media(32, 18),)), ttl_s=DAY_S)
        assert request.delivery.ttl_s == kept


def test_random_seeds_are_drawn_in_range_and_differ() -> None:
    drawn = [canonical(R2V, draft(seed=seed), Given((media(1, 1),)), ttl_s=DAY_S).seed for seed in (None, -1) * 4]
    assert all(0 <= seed <= MAX_SEED for seed in drawn)
    assert len(set(drawn)) > 1
    assert canonical(R2V, draft(seed=0), Given((media(1, 1),)), ttl_s=DAY_S).seed == 0
