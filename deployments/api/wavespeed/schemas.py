"""Bodies of the WaveSpeed dialect: the tasks' parameters, the envelope. Unknown parameters are refused.

Parameters, ranges and defaults are those of WaveSpeed's reference pages. Where a page's range is also a limit of the
checkpoint (the duration), the registry's row is asked, so that tiny checkpoints may do less.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Aspect = Literal["16:9", "9:16", "1:1"]
Status = Literal["created", "processing", "completed", "failed"]


class _Task(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    prompt: str


class ReferenceToVideo(_Task):
    """SkyReels V3 reference-to-video."""

    prompt: str = Field(description="Scene, action, camera.")
    images: list[str] = Field(
        min_length=1, max_length=4, description="Reference images: URLs, data URIs, base64 or ids of uploaded files."
    )
    aspect_ratio: Aspect = "16:9"
    duration: int = Field(default=5, description="Whole seconds, 5 to 10 (tiny checkpoints: from 1).")


class ImageToVideo(_Task):
    """SkyReels V1 image-to-video."""

    prompt: str = Field(description="Scene, action, camera.")
    image: str = Field(description="The image: a URL, a data URI, base64 or the id of an uploaded file.")
    seed: Annotated[int, Field(ge=-1, le=2147483647)] | None = Field(default=None, description="−1 = random.")
    guidance_scale: float = Field(default=6, ge=1, le=20)
    num_inference_steps: int = Field(default=30, ge=1, le=50)
    negative_prompt: str | None = None
    aspect_ratio: Aspect = "16:9"


class TextToVideo(_Task):
    """SkyReels V2 text-to-video."""

    prompt: str = Field(description="Scene, action, camera.")
    aspect_ratio: Literal["16:9", "9:16"] | None = Field(default=None, description="16:9, or the medium's.")
    duration: int | None = Field(default=None, description="Whole seconds; the model's own if left out.")
    seed: Annotated[int, Field(ge=-1, le=2147483647)] | None = Field(default=None, description="−1 = random.")
    guidance_scale: float | None = Field(default=None, description="1 to 20; the model's own if left out.")
    num_inference_steps: int | None = Field(default=None, description="1 to 50; the model's own if left out.")
    negative_prompt: str | None = Field(default=None, description="A sentence of the server's if left out.")


class FirstFrameToVideo(TextToVideo):
    """SkyReels V2 image-to-video."""

    image: str = Field(description="The first frame: a URL, a data URI, base64 or the id of an uploaded file.")


class ForcedVideo(TextToVideo):
    """SkyReels V2 diffusion forcing: from text, from a first frame (and a last one), or from a video."""

    image: str | None = Field(default=None, description="The first frame.")
    end_image: str | None = Field(default=None, description="The last frame; needs a first one.")
    video: str | None = Field(default=None, description="The video to continue.")
    ar_step: int | None = Field(default=None, description="Steps between the starts of blocks, 0 to 10; 0 if left out.")
    causal_block_size: int | None = Field(default=None, description="Latent frames of a block, 1 or 5; 1 if left out.")
    addnoise_condition: int | None = Field(default=None, description="Noise on known frames, 0 to 60; 20 if left out.")


class ExtendVideo(_Task):
    """SkyReels V3 single-shot extension."""

    prompt: str = Field(description="What happens next.")
    video: str = Field(description="The video to continue: a URL, a data URI, base64 or the id of an uploaded file.")
    duration: int = Field(default=5, description="Whole seconds, 5 to 30 (tiny checkpoints: from 1).")
    resolution: str | None = Field(default=None, description='"480P", "540P" or "720P".')
    seed: Annotated[int, Field(ge=-1, le=2147483647)] | None = Field(default=None, description="−1 = random.")


class SwitchShot(ExtendVideo):
    """SkyReels V3 shot-switching extension."""

    prompt: str = Field(description="The next shot, perhaps behind the kind of cut.")
    duration: int = Field(default=5, description="Whole seconds, 2 to 5.")


class TalkingAvatar(_Task):
    """SkyReels V3 talking avatar."""

    prompt: str = Field(description="Who speaks, and how.")
    image: str = Field(description="The portrait: a URL, a data URI, base64 or the id of an uploaded file.")
    audio: str | list[str] = Field(description="The voice, or one for each of two speakers at once; sets the length.")
    masks: list[str] = Field(default=[], description="Where each of two speakers is, as images of the portrait's size.")
    resolution: str | None = Field(default=None, description='"480P", "540P" or "720P".')
    seed: Annotated[int, Field(ge=-1, le=2147483647)] | None = Field(default=None, description="−1 = random.")


class Urls(BaseModel):
    """Related endpoints."""

    get: str


class Timings(BaseModel):
    """Milliseconds that were worked."""

    inference: int


class Prediction(BaseModel):
    """A job as WaveSpeed shows it."""

    id: str
    model: str
    outputs: list[str] = Field(description="Empty until the status is completed.")
    urls: Urls
    status: Status
    created_at: str = Field(description="ISO 8601, milliseconds, UTC.")
    error: str = Field(description="Empty if there is none.")
    timings: Timings


class CheckedPrediction(Prediction):
    """A job of SkyReels V1, whose page documents one field more."""

    has_nsfw_contents: list[bool] = Field(default=[], description="Empty while no checker is served.")


class Envelope(BaseModel):
    """Every answer that is not a refusal."""

    code: Literal[200] = 200
    message: Literal["success"] = "success"
    data: CheckedPrediction | Prediction


class Refusal(BaseModel):
    """A refusal; `code` is the HTTP status."""

    code: int
    message: str
