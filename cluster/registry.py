"""The models this project knows: names, addresses in each API, limits, prices. One row each; all else derives from it.

`MODELS` can be served by this version. `UPCOMING` cannot yet, but an API that documents them checks their requests in
full before it says so. Sources: resolutions, steps and frame rates are facts of the released checkpoints; limits,
defaults and prices are those of the hosted products.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import UnknownModel

K = TypeVar("K", bound="Known")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model accepts."""

    resolutions: tuple[str, ...]
    default_resolution: str
    aspect_ratios: tuple[str, ...]
    min_duration_s: int
    max_duration_s: int
    default_duration_s: int
    min_images: int  # references, over all groups
    max_images: int
    max_prompt_chars: int
    max_results: int  # of one job
    whole_seconds: bool = True  # of durations
    sized_by: Literal["images", "video"] = "images"  # what chooses the aspect where the caller does not
    portrait: bool = False  # sizes are those of `plans.PORTRAITS`
    pair: bool = False  # sizes are those of `plans.PAIRS`
    timed_by_audio: bool = False  # the voices set the length; else the caller does
    group_types: tuple[str, ...] = ()  # what a group of reference images may be: "image" single ones, "grid" a collage
    max_frame_images: int = 0  # images at a position of the video
    min_videos: int = 0
    max_videos: int = 0  # reference videos
    min_video_pixels: int = 0  # of a reference video's frame
    max_voices: int = 0  # sounds that somebody in the picture speaks; where there may be any, there must be one
    min_media_s: float = 0.0  # of a voice
    max_media_s: float = 0.0  # of a reference video or voice
    include_source: bool = False  # the continued video can come first in the file
    max_guidance: float = 1.0  # of the text; above 1 a step takes two evaluations, of references three
    max_guidance_image: float = 1.0  # of references
    max_steps: int = 0  # that a caller may ask for; 0 = the model's own and no others
    forcing: bool = False  # frames may take turns
    voice: bool = False  # a group of reference images may carry a voice
    sound: bool = False  # the model can make sound
    negative_prompt: bool = False  # the model is guided


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A model by its public face."""

    name: str
    title: str
    task: str
    aliases: tuple[str, ...]
    limits: Limits
    fps: int
    wavespeed: str | None = None  # path below /api/v3/
    runware: str | None = None  # model identifier

    @property
    def names(self) -> tuple[str, ...]:
        """Everything it answers to."""
        return tuple(name for name in (self.name, *self.aliases, self.wavespeed, self.runware) if name is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Known):
    """A model that can be served."""

    graph: str
    steps: int
    flow_shift: float
    guidance: float = 1.0  # unless the caller says otherwise
    negative_prompt: str = ""  # the same; our own sentence, since none is published
    heads: int | None = None  # attention heads of its transformer; None = as the checkpoint says
    family: Literal["wan", "hunyuan"] = "wan"  # of its text encoders and VAE


class Price(BaseModel):
    """What a second of video costs; None = whatever the resolution or the workflow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_s_usd: Annotated[Decimal, Field(ge=0, decimal_places=6, max_digits=12)]
    resolution: str | None = None
    workflow: Literal["generate", "edit"] | None = None  # from text or images; from a video

    def fits(self, resolution: str, workflow: str) -> bool:
        return self.resolution in {None, resolution} and self.workflow in {None, workflow}


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by model, each model's in the order in which they are tried."""

    prices: Mapping[str, tuple[Price, ...]]

    def per_s_usd(self, model: str, resolution: str, workflow: str = "generate") -> Decimal:
        """The price of a second; 0 where none is set. Exact: a decimal of at most millionths of a dollar."""
        fitting = (price.per_s_usd for price in self.prices.get(model, ()) if price.fits(resolution, workflow))
        return next(fitting, Decimal(0))


_WORKFLOWS: tuple[Literal["generate", "edit"], ...] = ("generate", "edit")
_R2V = Model(
    name="skyreels-v3-r2v",
    title="SkyReels V3 reference-to-video",
    task="reference_to_video",
    graph="r2v",
    aliases=("Skywork/SkyReels-V3-R2V-14B", "Skywork/SkyReels-V3-Reference2Video", "reference_to_video"),
    wavespeed="skywork-ai/skyreels-v3/reference-to-video",
    runware="skywork:skyreels-v3@r2v",
    limits=Limits(
        resolutions=("480P", "540P", "720P"),
        default_resolution="720P",
        aspect_ratios=("16:9", "9:16", "1:1", "4:3", "3:4"),
        min_duration_s=5,
        max_duration_s=10,
        default_duration_s=5,
        min_images=1,
        max_images=4,
        max_prompt_chars=5120,
        max_results=4,
        group_types=("image",),
        max_guidance=20.0,
        max_guidance_image=20.0,
    ),
    fps=24,
    steps=8,
    flow_shift=5.0,
    heads=40,
)

_EXTEND = Model(
    name="skyreels-v3-extend",
    title="SkyReels V3 single-shot extension",
    task="single_shot_extension",
    graph="extend",
    aliases=("Skywork/SkyReels-V3-V2V-14B", "Skywork/SkyReels-V3-Video-Extension", "single_shot_extension"),
    wavespeed="skywork-ai/skyreels-v3/single-shot-extension",
    runware="skywork:skyreels-v3@extend",
    limits=Limits(
        resolutions=("480P", "540P", "720P"),
        default_resolution="720P",
        aspect_ratios=(),
        min_duration_s=5,
        max_duration_s=30,
        default_duration_s=5,
        min_images=0,
        max_images=0,
        max_prompt_chars=5120,
        max_results=4,
        sized_by="video",
        min_videos=1,
        max_videos=1,
        max_media_s=120.0,
        include_source=True,
    ),
    fps=24,
    steps=8,
    flow_shift=8.0,
)
_SHOT = replace(
    _EXTEND,
    name="skyreels-v3-shot",
    title="SkyReels V3 shot-switching extension",
    task="shot_switching_extension",
    graph="shot",
    aliases=("Skywork/SkyReels-V3-V2V-14B/shot_transformer", "shot_switching_extension"),
    wavespeed="skywork-ai/skyreels-v3/shot-switching-extension",
    runware="skywork:skyreels-v3@shot",
    limits=replace(_EXTEND.limits, min_duration_s=2, max_duration_s=5, default_duration_s=5, include_source=False),
)
_AVATAR = Model(
    name="skyreels-v3-avatar",
    title="SkyReels V3 talking avatar",
    task="talking_avatar",
    graph="avatar",
    aliases=("Skywork/SkyReels-V3-A2V-19B", "Skywork/SkyReels-V3-TalkingAvatar", "talking_avatar"),
    wavespeed="skywork-ai/skyreels-v3/talking-avatar",
    runware="skywork:skyreels-v3@avatar",
    limits=Limits(
        resolutions=("480P", "540P", "720P"),
        default_resolution="720P",
        aspect_ratios=(),
        min_duration_s=1,
        max_duration_s=200,
        default_duration_s=1,
        min_images=1,
        max_images=1,
        max_prompt_chars=5120,
        max_results=4,
        portrait=True,
        timed_by_audio=True,
        group_types=("image",),
        max_voices=2,
        min_media_s=0.4,
        max_media_s=200.0,
        voice=True,
    ),
    fps=25,
    steps=4,
    flow_shift=11.0,
)

_NEGATIVE = (
    "blurred, low quality, compression artifacts, overexposed, washed-out colours, flicker, frozen picture, "
    "jerky motion, deformed hands, extra fingers, distorted face, watermark, subtitles, text"
)
_T2V = Model(
    name="skyreels-v2-t2v",
    title="SkyReels V2 text-to-video 14B, 540P",
    task="text_to_video",
    graph="t2v",
    aliases=("Skywork/SkyReels-V2-T2V-14B-540P", "Skywork/SkyReels-V2-T2V-14B-540P-Diffusers"),
    wavespeed="skywork-ai/skyreels-v2/text-to-video",
    runware="skywork:skyreels-v2@t2v",
    limits=Limits(
        resolutions=("540P",),
        default_resolution="540P",
        aspect_ratios=("16:9", "9:16"),
        min_duration_s=4,
        max_duration_s=4,
        default_duration_s=4,
        min_images=0,
        max_images=0,
        max_prompt_chars=5120,
        max_results=4,
        pair=True,
        max_guidance=20.0,
        max_steps=50,
        negative_prompt=True,
    ),
    fps=24,
    steps=30,
    flow_shift=8.0,
    guidance=6.0,
    negative_prompt=_NEGATIVE,
    heads=40,
)
_I2V = replace(
    _T2V,
    name="skyreels-v2-i2v",
    title="SkyReels V2 image-to-video 14B, 540P",
    task="image_to_video",
    graph="i2v",
    aliases=("Skywork/SkyReels-V2-I2V-14B-540P", "Skywork/SkyReels-V2-I2V-14B-540P-Diffusers"),
    wavespeed="skywork-ai/skyreels-v2/image-to-video",
    runware="skywork:skyreels-v2@i2v",
    limits=replace(_T2V.limits, min_images=1, max_images=1, max_frame_images=1),
    flow_shift=5.0,
    guidance=5.0,
)
_DF = replace(
    _T2V,
    name="skyreels-v2-df",
    title="SkyReels V2 diffusion forcing 14B, 540P",
    task="diffusion_forcing",
    graph="df",
    aliases=("Skywork/SkyReels-V2-DF-14B-540P", "Skywork/SkyReels-V2-DF-14B-540P-Diffusers"),
    wavespeed="skywork-ai/skyreels-v2/diffusion-forcing",
    runware="skywork:skyreels-v2@df",
    limits=replace(
        _T2V.limits,
        max_duration_s=60,
        max_images=2,
        max_frame_images=2,
        max_videos=1,
        max_media_s=120.0,
        include_source=True,
        forcing=True,
    ),
)


def _variant(model: Model, suffix: str, size: str, resolution: str, seconds: int, heads: int) -> Model:
    """Another released checkpoint of a V2 model."""
    kind = model.name.rpartition("-")[2].upper()
    repository = f"Skywork/SkyReels-V2-{kind}-{size}-{resolution}"
    limits = model.limits
    longest_s = limits.max_duration_s if limits.forcing else seconds
    return replace(
        model,
        name=f"{model.name}-{suffix}",
        title=f"{model.title.rpartition(' 14B')[0]} {size}, {resolution}",
        aliases=(repository, f"{repository}-Diffusers"),
        wavespeed=f"{model.wavespeed}-{suffix}",
        runware=f"{model.runware}-{suffix}",
        limits=replace(
            limits,
            resolutions=(resolution,),
            default_resolution=resolution,
            min_duration_s=seconds,
            max_duration_s=longest_s,
            default_duration_s=seconds,
        ),
        heads=heads,
    )


_V2 = (
    *(row for model in (_T2V, _I2V, _DF) for row in (model, _variant(model, "720p", "14B", "720P", 5, 40))),
    *(_variant(model, "1.3b", "1.3B", "540P", 4, 12) for model in (_I2V, _DF)),
)

_V1_T2V = Model(
    name="skyreels-v1-t2v",
    title="SkyReels V1 text-to-video",
    task="hunyuan_text_to_video",
    graph="v1-t2v",
    aliases=("Skywork/SkyReels-V1-Hunyuan-T2V",),
    limits=Limits(
        resolutions=("540P",),
        default_resolution="540P",
        aspect_ratios=("16:9", "9:16", "1:1"),
        min_duration_s=4,
        max_duration_s=4,
        default_duration_s=4,
        min_images=0,
        max_images=0,
        max_prompt_chars=5120,
        max_results=4,
        max_guidance=20.0,
        max_steps=50,
        negative_prompt=True,
    ),
    fps=24,
    steps=30,
    flow_shift=7.0,
    heads=24,
    guidance=6.0,
    negative_prompt="blurred, overexposed, badly composed, deformed hands, distorted face, extra limbs",
    family="hunyuan",
)
_V1_I2V = replace(
    _V1_T2V,
    name="skyreels-v1-i2v",
    title="SkyReels V1 image-to-video",
    task="hunyuan_image_to_video",
    graph="v1-i2v",
    aliases=("Skywork/SkyReels-V1-Hunyuan-I2V",),
    wavespeed="wavespeed-ai/SkyReels-V1",
    limits=replace(_V1_T2V.limits, min_images=1, max_images=1, max_results=1),
)

_V4 = Known(
    name="skyreels-v4",
    title="SkyReels V4",
    task="multimodal_to_video",
    aliases=(),
    runware="skywork:skyreels@v4",
    limits=Limits(
        resolutions=("480P", "720P", "1080P"),
        default_resolution="1080P",
        aspect_ratios=("16:9", "9:16", "4:3", "3:4", "1:1"),
        min_duration_s=3,
        max_duration_s=15,
        default_duration_s=5,
        min_images=0,
        max_images=15,
        max_prompt_chars=5120,
        max_results=4,
        whole_seconds=False,
        group_types=("grid", "image"),
        max_frame_images=8,
        max_videos=1,
        min_video_pixels=1_866_240,
        max_media_s=15.0,
        voice=True,
        sound=True,
    ),
    fps=32,
)

_V4_PRICES = {"480P": ("0.11", "0.18"), "720P": ("0.14", "0.25"), "1080P": ("0.35", "0.625")}  # generate, edit
PRICES: Mapping[str, tuple[Price, ...]] = {
    _R2V.name: (Price(per_s_usd=Decimal("0.04")),),
    _V4.name: tuple(
        Price(per_s_usd=Decimal(text), resolution=resolution, workflow=workflow)
        for resolution, pair in _V4_PRICES.items()
        for text, workflow in zip(pair, _WORKFLOWS, strict=True)
    ),
}

MODELS: Mapping[str, Model] = {row.name: row for row in (_R2V, _EXTEND, _SHOT, _AVATAR, *_V2, _V1_T2V, _V1_I2V)}
UPCOMING: Mapping[str, Known] = {row.name: row for row in (_V4,)}
KNOWN: Mapping[str, Known] = {**MODELS, **UPCOMING}


def tiny(model: Model) -> Model:
    """The row of a model's tiny checkpoint: toy sizes and one-second clips come in, nothing is taken away."""
    shortest_s = model.limits.min_duration_s if model.graph == "shot" else 1  # a shot's plan begins there
    limits = replace(
        model.limits,
        resolutions=("64P", *model.limits.resolutions),
        default_resolution="64P",
        min_duration_s=shortest_s,
        default_duration_s=shortest_s,
    )
    return replace(model, limits=limits, heads=None)


class Registry:
    """The models served by one installation, found by name, alias or address."""

    def __init__(self, models: Iterable[Model]) -> None:
        self.models = {model.name: model for model in models}
        self._served = _by_name(self.models.values())
        self._known = _by_name(UPCOMING.values()) | _by_name(MODELS.values()) | self._served

    def find(self, name: str) -> Model:
        """The served model of that name, alias or address, in any letter case.

        Raises:
            UnknownModel: nothing of that name is served; the message lists what is.
        """
        model = self._served.get(name.lower())
        if model is None:
            raise self._unknown(name)
        return model

    def known(self, name: str) -> Known:
        """The row of that name, served here or not, so that a request can be checked before `find` refuses it.

        Raises:
            UnknownModel: there is no such model.
        """
        model = self._known.get(name.lower())
        if model is None:
            raise self._unknown(name)
        return model

    def _unknown(self, name: str) -> UnknownModel:
        served = ", ".join(sorted(self.models)) or "none"
        return UnknownModel(f"Model {name!r} is not served here; served models: {served}.", param="model")


def _by_name(models: Iterable[K]) -> dict[str, K]:
    return {name.lower(): model for model in models for name in model.names}


def table(models: Iterable[Known] = KNOWN.values()) -> str:
    """The models as a Markdown table, as the documents show it."""
    head = ("model", "what it does", "sizes", "length", "takes", "$ per second", "WaveSpeed path", "Runware id")
    rows = [head, tuple("---" for _ in head)]
    for model in models:
        limits = model.limits
        rows.append(
            (
                f"`{model.name}`" + ("" if model.name in MODELS else " (not yet served)"),
                model.task.replace("_", " "),
                ", ".join(limits.resolutions),
                f"{_length(limits)} s, {model.fps} fps",
                _takes(limits),
                _dollars(PRICES.get(model.name, ())),
                f"`{model.wavespeed}`" if model.wavespeed else "",
                f"`{model.runware}`" if model.runware else "",
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _length(limits: Limits) -> str:
    if limits.timed_by_audio:
        return f"{limits.min_media_s:g}–{limits.max_media_s:g}"
    return _span(limits.min_duration_s, limits.max_duration_s)


def _takes(limits: Limits) -> str:
    """The media of a request."""
    counts = ((limits.min_images, limits.max_images, "image"), (limits.min_videos, limits.max_videos, "video"))
    named = [f"{_span(low, high)} {kind}{'s' if high > 1 else ''}" for low, high, kind in counts if high]
    if limits.max_voices:
        named.append(f"{_span(1, limits.max_voices)} voices")
    return ", ".join(named)


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def _dollars(prices: Iterable[Price]) -> str:
    return ", ".join(
        f"{price.per_s_usd:f}"
        + (f" {price.resolution}" if price.resolution else "")
        + (" edited" if price.workflow == "edit" else "")
        for price in prices
    )
