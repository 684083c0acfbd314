"""Bodies of the Runware dialect: what a task may say, whatever its model. Unknown parameters are refused.

Names, types, ranges and defaults are those of Runware's reference of SkyReels V4. What depends on the model is in
`rules`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

UUID4 = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
TAG = r"@[A-Za-z0-9_-]{1,63}"
IMAGE = "A URL, a data URI, base64, or the id of an uploaded file."


def _uuid4(text: str) -> str:
    if re.fullmatch(UUID4, text) is None:
        raise ValueError("must be a UUID v4")
    return text


def _tag(text: str) -> str:
    if re.fullmatch(TAG, text) is None:
        raise ValueError("must be @ and letters, digits, _ or -")
    return text


def _position(value: Any) -> Any:
    number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not number and value not in ("first", "last"):
        raise ValueError("must be first, last, or a frame's number from 0")
    return value


def _frame(item: Any) -> Any:
    return {"image": item} if isinstance(item, str) else item


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Uuid4 = Annotated[str, AfterValidator(_uuid4), Field(json_schema_extra={"pattern": f"^{UUID4}$"})]
Tag = Annotated[
    str,
    AfterValidator(_tag),
    Field(description="Begins with @; the prompt mentions it.", json_schema_extra={"pattern": f"^{TAG}$"}),
]
Position = Annotated[
    int | str,
    PlainValidator(_position, json_schema_input_type=Annotated[int, Field(ge=0)] | Literal["first", "last"]),
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Safety(_Part):
    """Content checks of the result."""

    checkContent: bool = False
    mode: Literal["none", "fast", "full"] = "none"


class ReferenceImages(_Part):
    """A group of reference images: single ones of a subject, scene or style, or one collage."""

    type: Literal["grid", "image"]
    images: list[str] = Field(min_length=1, max_length=5, description=IMAGE)
    tag: Tag
    audio: str | None = Field(
        default=None, description="Voice: a URL or the id of an uploaded file; its longest is the model's."
    )


class FrameImage(_Part):
    """An image at a position of the video."""

    image: str = Field(description=IMAGE)
    frame: Position | None = Field(default=None, description="A frame's number from 0, first or last.")


class ReferenceVideo(_Part):
    """A video to follow, to edit or to extend."""

    type: Literal["reference", "extend"]
    tag: Tag
    video: str = Field(description="A URL or the id of an uploaded file; length and size are the model's.")


class Inputs(_Part):
    """Everything that is not text."""

    referenceImages: list[ReferenceImages] | None = Field(default=None, min_length=1, max_length=3)
    frameImages: (
        list[Annotated[FrameImage, BeforeValidator(_frame, json_schema_input_type=str | FrameImage)]] | None
    ) = Field(default=None, min_length=1, max_length=8)
    referenceVideos: list[ReferenceVideo] | None = Field(default=None, min_length=1, max_length=1)


class Settings(_Part):
    """How the model works."""

    audio: bool | None = Field(default=None, description="Sound for the video.")
    promptExtend: bool | None = Field(
        default=None,
        description="Rewriting of the prompt by a language model; left out means true where one is served. Where none "
        "is, true is refused, and left out means false. The acknowledgement says what holds.",
    )


class VideoInference(_Part):
    """Queues a video."""

    taskType: Literal["videoInference"]
    taskUUID: Uuid4 = Field(
        description="The caller's name of the task, and its idempotency key: the same task again is the same job for "
        "as long as that exists, and another task under the same name is refused."
    )
    model: str = Field(max_length=200, description="Identifier, name or alias.")
    positivePrompt: str = Field(max_length=5120)
    outputType: Literal["URL"] = "URL"
    outputFormat: Literal["MP4", "WEBM", "MOV"] = "MP4"
    outputQuality: int = Field(default=95, ge=20, le=99)
    webhookURL: str | None = Field(default=None, description="Called once for each result, and when the task fails.")
    deliveryMethod: Literal["async"] = "async"
    uploadEndpoint: str | None = Field(default=None, description="The file is sent there by PUT.")
    safety: Safety = Safety()
    ttl: int | None = Field(default=None, ge=60, description="Seconds that the result is kept for.")
    includeCost: bool = False
    inputs: Inputs = Inputs()
    numberResults: int = Field(default=1, ge=1, le=4)
    width: int | None = Field(default=None, ge=1, le=8192)
    height: int | None = Field(default=None, ge=1, le=8192)
    resolution: str | None = Field(default=None, max_length=16, description='For example "720p".')
    duration: float | None = Field(default=None, description="Seconds.")
    settings: Settings = Settings()


class GetResponse(_Part):
    """Asks for the results of one task, or of several."""

    taskType: Literal["getResponse"]
    taskUUID: Annotated[
        list[Uuid4],
        BeforeValidator(_several, json_schema_input_type=Uuid4 | list[Uuid4]),
        Field(min_length=1, max_length=100),
    ]


class Applied(BaseModel):
    """Settings as they are in effect."""

    audio: bool
    promptExtend: bool


class Acknowledgement(BaseModel):
    """The task is queued, or was before."""

    taskType: Literal["videoInference"] = "videoInference"
    taskUUID: str
    settings: Applied = Field(description="Ours: what is in effect.")


class TaskResult(BaseModel):
    """One result of a task. From `videoUUID` on only with status success; `cost` only when it was asked for."""

    taskType: Literal["videoInference"] = "videoInference"
    taskUUID: str
    status: Literal["processing", "success"]
    videoUUID: str | None = None
    videoURL: str | None = None
    seed: int | None = None
    extendedPrompt: str | None = Field(
        default=None, description="Ours: the prompt that was encoded, where it is another than the caller's."
    )
    cost: float | None = Field(default=None, description="US dollars.")


class TaskError(BaseModel):
    """What went wrong with one task. `status` is there when the task was accepted and failed later."""

    code: str
    message: str
    parameter: str | None = None
    taskUUID: str | None = None
    taskType: str | None = None
    status: Literal["error"] | None = None


class Answer(BaseModel):
    """What became of each task, in their order."""

    data: list[Acknowledgement | TaskResult]
    errors: list[TaskError] | None = None


class Refusal(BaseModel):
    """No task of the call could be done."""

    errors: list[TaskError]
