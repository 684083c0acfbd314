"""From what a dialect read (`Draft`) to the canonical `Request`: every limit is checked here, before any work.

`check` needs no media and runs first; `canonical` completes the request once the references are stored and probed.
Each refusal is one sentence that names the field and what it may be.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cluster.errors import InvalidRequest
from cluster.plans import BUCKETS, Size, aspect_bucket, bucket, clip_frames, floor16
from cluster.records import Delivery, Dialect, Media, Output, Request
from cluster.registry import Known, Model

MAX_SEED = 2**32 - 1
MIN_TTL_S = 60.0
QUALITIES = (20, 99)
_WORDS: Mapping[Dialect, Mapping[str, str]] = {
    Dialect.OPENAI: {},
    Dialect.WAVESPEED: {"seconds": "duration", "webhook_url": "webhook"},
    Dialect.RUNWARE: {
        "seconds": "duration",
        "prompt": "positivePrompt",
        "images": "inputs.referenceImages",
        "size": "width/height",
        "quality": "outputQuality",
        "n": "numberResults",
        "webhook_url": "webhookURL",
        "upload_url": "uploadEndpoint",
    },
}


def word(dialect: Dialect, field_name: str) -> str:
    """What a dialect calls a field that the canonical request shares with OpenAI's."""
    return _WORDS[dialect].get(field_name, field_name)


@dataclass(frozen=True, slots=True)
class Draft:
    """A request as a dialect read it; None = the caller left it out."""

    prompt: str
    images: int  # how many references it carries
    duration_s: int | None = None
    size: Size | None = None  # (height, width)
    aspect_ratio: str | None = None
    resolution: str | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    n: int = 1
    priority: int = 0
    deadline_s: float | None = None
    output: Output = field(default_factory=Output)
    delivery: Delivery = field(default_factory=Delivery)


def sizes(model: Known) -> dict[Size, str]:
    """Every output size of a model and the resolution family it belongs to; the smallest family wins a tie."""
    found: dict[Size, str] = {}
    for family in model.limits.resolutions:
        for height, width in BUCKETS[family].values():
            found.setdefault((floor16(height), floor16(width)), family)
    return found


def check(model: Known, draft: Draft) -> None:
    """Refuses everything that is wrong without looking at the media, in the words of the draft's dialect.

    Raises:
        InvalidRequest: the first violated limit.
    """
    limits = model.limits
    prompt, images, seconds = (word(draft.delivery.dialect, name) for name in ("prompt", "images", "seconds"))
    if not draft.prompt.strip():
        raise InvalidRequest(f"{prompt} must not be empty.", param=prompt)
    if len(draft.prompt) > limits.max_prompt_chars:
        raise InvalidRequest(
            f"{prompt} has {len(draft.prompt)} characters; {model.name} takes at most {limits.max_prompt_chars}.",
            param=prompt,
        )
    if not limits.min_images <= draft.images <= limits.max_images:
        raise InvalidRequest(
            f"{model.name} takes {limits.min_images} to {limits.max_images} reference images; got {draft.images}.",
            param=images,
        )
    if draft.duration_s is not None and not limits.min_duration_s <= draft.duration_s <= limits.max_duration_s:
        raise InvalidRequest(
            f"{seconds} must be {limits.min_duration_s} to {limits.max_duration_s} for {model.name}; "
            f"got {draft.duration_s}.",
            param=seconds,
        )
    if not 1 <= draft.n <= limits.max_results:
        name = word(draft.delivery.dialect, "n")
        raise InvalidRequest(f"{name} must be 1 to {limits.max_results} for {model.name}; got {draft.n}.", param=name)
    _one_of("aspect_ratio", draft.aspect_ratio, limits.aspect_ratios)
    _one_of("resolution", draft.resolution, limits.resolutions)
    if draft.seed is not None and not -1 <= draft.seed <= MAX_SEED:
        raise InvalidRequest(f"seed must be -1 (random) or 0 to {MAX_SEED}; got {draft.seed}.", param="seed")
    if draft.negative_prompt and not limits.negative_prompt:
        raise InvalidRequest(
            f"{model.name} is guidance-distilled and has no negative prompt; leave negative_prompt out.",
            param="negative_prompt",
        )
    if draft.deadline_s is not None and draft.deadline_s <= 0:
        raise InvalidRequest(f"deadline_s must be above 0 seconds; got {draft.deadline_s}.", param="deadline_s")
    _check_output(draft)
    if draft.size is not None:
        _check_size(model, draft, draft.size)


def _check_output(draft: Draft) -> None:
    low, high = QUALITIES
    quality = draft.output.quality
    if quality is not None and not low <= quality <= high:
        name = word(draft.delivery.dialect, "quality")
        raise InvalidRequest(f"{name} must be {low} to {high}; got {quality}.", param=name)
    ttl_s = draft.delivery.ttl_s
    if ttl_s is not None and ttl_s < MIN_TTL_S:
        raise InvalidRequest(f"ttl must be at least {MIN_TTL_S:g} seconds; got {ttl_s:g}.", param="ttl")

    if draft.delivery.upload_url is not None and draft.n > 1:
        raise InvalidRequest(
            f"One upload URL takes one result; ask for one, or leave the URL out. Got {draft.n} results.",
            param="upload_url",
        )


def _one_of(field: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise InvalidRequest(f"{field} must be one of {', '.join(allowed)}; got {value!r}.", param=field)


def _check_size(model: Known, draft: Draft, size: Size) -> None:
    name = word(draft.delivery.dialect, "size")
    if draft.aspect_ratio is not None or draft.resolution is not None:
        raise InvalidRequest(f"Give either {name} or aspect_ratio and resolution, not both.", param=name)
    if size not in sizes(model):
        common = sorted(
            aspect_bucket(family, aspect)
            for family in model.limits.resolutions
            for aspect in model.limits.aspect_ratios
        )
        listed = ", ".join(f"{width}x{height}" for height, width in common)
        raise InvalidRequest(
            f"{name} {size[1]}x{size[0]} is not offered by {model.name}; common sizes: {listed}.", param=name
        )


def canonical(model: Model, draft: Draft, images: tuple[Media, ...], *, ttl_s: float) -> Request:
    """The complete request of a checked draft. The first image chooses the aspect unless the caller did; results are
    kept `ttl_s` after the end unless the caller asked for less.
    """
    family = draft.resolution or model.limits.default_resolution
    if draft.size is not None:
        height, width = draft.size
        family = sizes(model)[draft.size]
    elif draft.aspect_ratio is not None:
        height, width = aspect_bucket(family, draft.aspect_ratio)
    else:
        first = images[0]
        if first.height is None or first.width is None:
            raise InvalidRequest("The first reference image has no size.", param="images")
        height, width = bucket(family, first.height, first.width)
    duration_s = draft.duration_s if draft.duration_s is not None else model.limits.default_duration_s
    seed = draft.seed if draft.seed is not None and draft.seed >= 0 else secrets.randbelow(MAX_SEED + 1)
    return Request(
        model=model.name,
        prompt=draft.prompt,
        images=images,
        aspect_ratio=draft.aspect_ratio,
        resolution=family,
        duration_s=duration_s,
        fps=model.fps,
        height=height,
        width=width,
        frames=clip_frames(duration_s, model.fps),
        steps=model.steps,
        seed=seed,
        n=draft.n,
        priority=draft.priority,
        deadline_s=draft.deadline_s,
        output=draft.output,
        delivery=replace(draft.delivery, ttl_s=min(draft.delivery.ttl_s or ttl_s, ttl_s)),
    )
