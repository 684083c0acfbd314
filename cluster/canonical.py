"""From what a dialect read (`Draft`) to the canonical `Request`: every limit is checked here, before any work.

`check` needs no media and runs first; `canonical` completes the request once the references are stored and probed.
Each refusal is one sentence that names the field and what it may be.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cluster.errors import InvalidRequest, MediaRejected
from cluster.forcing import BLOCKS, KNOWN_TIMESTEP, MAX_KNOWN_TIMESTEP, MAX_LAG, OVERLAP_FRAMES, forcing_chunks
from cluster.plans import (
    BUCKETS,
    EXTENSION_PREFIX,
    PAIRS,
    PORTRAITS,
    Size,
    aspect_bucket,
    bucket,
    clip_frames,
    extension_frames,
    floor16,
    shot_roll,
)
from cluster.records import Delivery, Dialect, Forcing, Media, Output, Request
from cluster.registry import Known, Model

MAX_SEED = 2**32 - 1
MIN_TTL_S = 60.0
QUALITIES = (20, 99)
_WORDS: Mapping[Dialect, Mapping[str, str]] = {
    Dialect.OPENAI: {},
    Dialect.WAVESPEED: {
        "seconds": "duration",
        "webhook_url": "webhook",
        "steps": "num_inference_steps",
        "guidance": "guidance_scale",
    },
    Dialect.RUNWARE: {
        "seconds": "duration",
        "prompt": "positivePrompt",
        "images": "inputs.referenceImages",
        "video": "inputs.referenceVideos",
        "audio": "inputs.referenceImages[0].audio",
        "size": "width/height",
        "quality": "outputQuality",
        "prompt_extend": "settings.promptExtend",
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
    videos: int = 0
    voices: int = 0
    masks: int = 0
    include_source: bool = False
    guidance: float | None = None
    guidance_image: float | None = None
    steps: int | None = None
    ar_step: int | None = None
    causal_block_size: int | None = None
    addnoise_condition: int | None = None
    remixed_from: str | None = None
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
    prompt_extend: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """A request's media, stored and probed."""

    images: tuple[Media, ...] = ()
    video: Media | None = None
    audio: tuple[Media, ...] = ()
    masks: tuple[Media, ...] = ()
    film_frames: int = 0  # of the video at the model's rate
    voice_frames: int = 0  # of the longest voice, at the model's rate


def sizes(model: Known) -> dict[Size, str]:
    """Every output size of a model and the resolution family it belongs to; the smallest family wins a tie."""
    found: dict[Size, str] = {}
    for family in model.limits.resolutions:
        for height, width in _tables(model)[family].values():
            found.setdefault((floor16(height), floor16(width)), family)
    return found


def _tables(model: Known) -> Mapping[str, Mapping[float, Size]]:
    if model.limits.pair:
        return PAIRS
    return PORTRAITS if model.limits.portrait else BUCKETS


def check(model: Known, draft: Draft) -> None:
    """Refuses everything that is wrong without looking at the media, in the words of the draft's dialect.

    Raises:
        InvalidRequest: the first violated limit.
    """
    limits = model.limits
    prompt, seconds = (word(draft.delivery.dialect, name) for name in ("prompt", "seconds"))
    if not draft.prompt.strip():
        raise InvalidRequest(f"{prompt} must not be empty.", param=prompt)
    if len(draft.prompt) > limits.max_prompt_chars:
        raise InvalidRequest(
            f"{prompt} has {len(draft.prompt)} characters; {model.name} takes at most {limits.max_prompt_chars}.",
            param=prompt,
        )
    _check_media(model, draft)
    if draft.duration_s is not None and limits.timed_by_audio:
        raise InvalidRequest(f"{model.name} takes its length from the sound; leave {seconds} out.", param=seconds)
    if draft.duration_s is not None and not limits.min_duration_s <= draft.duration_s <= limits.max_duration_s:
        raise InvalidRequest(
            f"{seconds} must be {limits.min_duration_s} to {limits.max_duration_s} for {model.name}; "
            f"got {draft.duration_s}.",
            param=seconds,
        )
    if not 1 <= draft.n <= limits.max_results:
        name = word(draft.delivery.dialect, "n")
        raise InvalidRequest(f"{name} must be 1 to {limits.max_results} for {model.name}; got {draft.n}.", param=name)
    if draft.aspect_ratio is not None and not limits.aspect_ratios:
        by = "video" if limits.sized_by == "video" else "image"
        raise InvalidRequest(
            f"{model.name} takes its aspect from the {by}; leave aspect_ratio out.", param="aspect_ratio"
        )
    _one_of("aspect_ratio", draft.aspect_ratio, limits.aspect_ratios)
    _one_of("resolution", draft.resolution, limits.resolutions)
    if draft.seed is not None and not -1 <= draft.seed <= MAX_SEED:
        raise InvalidRequest(f"seed must be -1 (random) or 0 to {MAX_SEED}; got {draft.seed}.", param="seed")
    _check_guidance(model, draft)
    _check_steps(model, draft)
    if draft.deadline_s is not None and draft.deadline_s <= 0:
        raise InvalidRequest(f"deadline_s must be above 0 seconds; got {draft.deadline_s}.", param="deadline_s")
    _check_output(draft)
    if draft.size is not None:
        _check_size(model, draft, draft.size)


def _check_media(model: Known, draft: Draft) -> None:
    """How many of each kind there are."""
    limits = model.limits
    images, videos, voices, masks = (
        word(draft.delivery.dialect, name) for name in ("images", "video", "audio", "masks")
    )
    if not limits.min_images <= draft.images <= limits.max_images:
        allowed = f"{limits.min_images} to {limits.max_images}" if limits.max_images else "no"
        raise InvalidRequest(f"{model.name} takes {allowed} reference images; got {draft.images}.", param=images)
    if not limits.min_videos <= draft.videos <= limits.max_videos:
        allowed = "one video" if limits.max_videos else "no video"
        raise InvalidRequest(f"{model.name} takes {allowed}; got {draft.videos}.", param=videos)
    if not (1 if limits.max_voices else 0) <= draft.voices <= limits.max_voices:
        allowed = f"1 to {limits.max_voices} sounds" if limits.max_voices else "no sound"
        raise InvalidRequest(f"{model.name} takes {allowed}; got {draft.voices}.", param=voices)
    if draft.masks and not limits.max_voices:
        raise InvalidRequest(f"{model.name} takes no masks; got {draft.masks}.", param=masks)
    if draft.voices > 1 and draft.masks != draft.voices:
        raise InvalidRequest(
            f"{draft.voices} speakers need {draft.voices} masks, one for each; got {draft.masks}.", param=masks
        )
    if draft.voices == 1 and draft.masks:
        raise InvalidRequest("One speaker needs no mask; leave masks out.", param=masks)
    if limits.forcing and draft.images and draft.videos:
        raise InvalidRequest(f"{model.name} begins with images or with a video; leave one of them out.", param=videos)
    if draft.include_source and limits.include_source and not draft.videos:
        raise InvalidRequest(
            "include_source needs a video to continue; give one, or leave it out.", param="include_source"
        )
    if draft.include_source and not limits.include_source:
        raise InvalidRequest(
            f"{model.name} cannot put the source first; leave include_source out.", param="include_source"
        )


def _check_guidance(model: Known, draft: Draft) -> None:
    """Distilled models are not guided unless the caller asks for it."""
    limits = model.limits
    for name, most in (("guidance", limits.max_guidance), ("guidance_image", limits.max_guidance_image)):
        value = getattr(draft, name)
        if value is not None and not 1 <= value <= most:
            allowed = f"1 to {most:g}" if most > 1 else "1 or left out"
            said = word(draft.delivery.dialect, name)
            raise InvalidRequest(f"{said} must be {allowed} for {model.name}; got {value:g}.", param=said)
    guided = (draft.guidance or 1.0) > 1
    if draft.guidance_image is not None and draft.guidance_image > 1 and not guided:
        raise InvalidRequest("guidance_image needs a guidance above 1.", param="guidance_image")
    if draft.negative_prompt and not limits.negative_prompt and not guided:
        raise InvalidRequest(
            f"{model.name} is guidance-distilled and has no negative prompt; leave negative_prompt out.",
            param="negative_prompt",
        )


def _check_steps(model: Known, draft: Draft) -> None:
    """How many steps, and in which order frames take them."""
    limits = model.limits
    name = word(draft.delivery.dialect, "steps")
    if draft.steps is not None and not 1 <= draft.steps <= limits.max_steps:
        allowed = f"1 to {limits.max_steps}" if limits.max_steps else "left out"
        raise InvalidRequest(f"{name} must be {allowed} for {model.name}; got {draft.steps}.", param=name)
    settings = (
        ("ar_step", draft.ar_step, range(MAX_LAG + 1), f"0 to {MAX_LAG}"),
        ("causal_block_size", draft.causal_block_size, BLOCKS, " or ".join(map(str, BLOCKS))),
        ("addnoise_condition", draft.addnoise_condition, range(MAX_KNOWN_TIMESTEP + 1), f"0 to {MAX_KNOWN_TIMESTEP}"),
    )
    for name, value, choices, words in settings:
        if value is not None and (not limits.forcing or value not in choices):
            allowed = words if limits.forcing else "left out"
            raise InvalidRequest(f"{name} must be {allowed} for {model.name}; got {value}.", param=name)
    if (draft.causal_block_size or 1) > 1 and draft.images:
        raise InvalidRequest(
            "Start and end images are single frames and no whole causal blocks; leave causal_block_size out.",
            param="causal_block_size",
        )


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
    if not model.limits.aspect_ratios:
        by = "video" if model.limits.sized_by == "video" else "image"
        raise InvalidRequest(
            f"{model.name} takes its size from the {by}; give a resolution instead of {name}.", param=name
        )
    if draft.aspect_ratio is not None or draft.resolution is not None:
        raise InvalidRequest(f"Give either {name} or aspect_ratio and resolution, not both.", param=name)
    if size not in sizes(model):
        common = sorted(
            aspect_bucket(family, aspect, _tables(model))
            for family in model.limits.resolutions
            for aspect in model.limits.aspect_ratios
        )
        listed = ", ".join(f"{width}x{height}" for height, width in common)
        raise InvalidRequest(
            f"{name} {size[1]}x{size[0]} is not offered by {model.name}; common sizes: {listed}.", param=name
        )


def check_given(model: Known, draft: Draft, given: Given) -> None:
    """Refuses media that are whole but cannot be what the model needs, in the words of the draft's dialect.

    Raises:
        MediaRejected: too short or too long.
    """
    limits = model.limits
    voices = word(draft.delivery.dialect, "audio")
    for index, voice in enumerate(given.audio):
        name = f"{voices}[{index}]" if len(given.audio) > 1 else voices
        if not limits.min_media_s <= (voice.duration_s or 0.0) <= limits.max_media_s:
            raise MediaRejected(
                f"{name} lasts {voice.duration_s or 0:g} s; {limits.min_media_s:g} to {limits.max_media_s:g} s are "
                "accepted.",
                param=name,
            )


def needed_frames(model: Known, draft: Draft) -> int:
    """How many frames a video must have to be continued."""
    if model.limits.forcing:
        return OVERLAP_FRAMES
    if model.task == "single_shot_extension":
        return EXTENSION_PREFIX
    seconds = draft.duration_s if draft.duration_s is not None else model.limits.default_duration_s
    return shot_roll(seconds).prefix_frames


def canonical(model: Model, draft: Draft, given: Given, *, ttl_s: float) -> Request:
    """The complete request of a checked draft. The video, or else the first image, chooses the aspect unless the caller
    did, or else it is the model's first; results are kept `ttl_s` after the end unless the caller asked for less.
    """
    family = draft.resolution or model.limits.default_resolution
    if draft.size is not None:
        height, width = draft.size
        family = sizes(model)[draft.size]
    elif draft.aspect_ratio is not None:
        height, width = aspect_bucket(family, draft.aspect_ratio, _tables(model))
    elif (first := given.video or next(iter(given.images), None)) is None:
        height, width = aspect_bucket(family, model.limits.aspect_ratios[0], _tables(model))
    else:
        if first.height is None or first.width is None:
            raise InvalidRequest("The first reference image has no size.", param="images")
        height, width = bucket(family, first.height, first.width, _tables(model))
    duration_s, frames = _length(model, draft, given, family)
    seed = draft.seed if draft.seed is not None and draft.seed >= 0 else secrets.randbelow(MAX_SEED + 1)
    guidance = draft.guidance or model.guidance
    negative = model.negative_prompt if draft.negative_prompt is None else draft.negative_prompt
    return Request(
        model=model.name,
        prompt=draft.prompt,
        images=given.images,
        aspect_ratio=draft.aspect_ratio,
        resolution=family,
        duration_s=duration_s,
        fps=model.fps,
        height=height,
        width=width,
        frames=frames,
        steps=draft.steps or model.steps,
        seed=seed,
        negative_prompt=negative if guidance > 1 else "",
        guidance=guidance,
        guidance_image=draft.guidance_image or 1.0,
        n=draft.n,
        priority=draft.priority,
        deadline_s=draft.deadline_s,
        output=draft.output,
        delivery=replace(draft.delivery, ttl_s=min(draft.delivery.ttl_s or ttl_s, ttl_s)),
        video=given.video,
        audio=given.audio,
        masks=given.masks,
        include_source=draft.include_source,
        remixed_from=draft.remixed_from,
        prompt_extend=draft.prompt_extend,
        forcing=_forcing(model, draft),
    )


def _forcing(model: Model, draft: Draft) -> Forcing:
    if not model.limits.forcing:
        return Forcing()
    known = KNOWN_TIMESTEP if draft.addnoise_condition is None else draft.addnoise_condition
    return Forcing(draft.ar_step or 0, draft.causal_block_size or 1, known)


def _length(model: Model, draft: Draft, given: Given, family: str) -> tuple[int, int]:
    """(whole seconds, frames)."""
    if model.limits.timed_by_audio:
        return math.ceil(given.voice_frames / model.fps), given.voice_frames
    duration_s = draft.duration_s if draft.duration_s is not None else model.limits.default_duration_s
    if model.graph == "extend":
        return duration_s, extension_frames(duration_s) + (given.film_frames if draft.include_source else 0)
    if model.graph == "df":
        chunks = forcing_chunks(
            family, duration_s, block=draft.causal_block_size or 1, image=bool(given.images), video=bool(given.video)
        )
        before = given.film_frames if draft.include_source else 0
        return duration_s, sum(chunk.kept_frames for chunk in chunks) + before
    return duration_s, clip_frames(duration_s, model.fps)
