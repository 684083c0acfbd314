"""Bodies of the OpenAI Videos dialect. Unknown fields are refused; ours beyond OpenAI's are marked."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator

from cluster.canonical import QUALITIES
from cluster.records import Container, Job, JobState, Result
from deployments.api.results import failure


class ImageReference(BaseModel):
    """OpenAI's reference object: one of the two."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1, "maxProperties": 1})

    image_url: str | None = Field(default=None, description="An http(s) URL or a data URI.")
    file_id: str | None = Field(default=None, description="The id of an uploaded file.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.image_url is None) == (self.file_id is None):
            raise ValueError("give image_url or file_id, and not both")
        return self

    @property
    def source(self) -> str:
        """Whichever was given."""
        return self.image_url or self.file_id or ""


class MediaReference(BaseModel):
    """A video, sound or mask: one of the two."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1, "maxProperties": 1})

    url: str | None = Field(default=None, description="An http(s) URL or a data URI.")
    file_id: str | None = Field(default=None, description="The id of an uploaded file.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.url is None) == (self.file_id is None):
            raise ValueError("give url or file_id, and not both")
        return self

    @property
    def source(self) -> str:
        """Whichever was given."""
        return self.url or self.file_id or ""


ImageInput = str | ImageReference
MediaInput = str | MediaReference


class CreateVideo(BaseModel):
    """`POST /v1/videos`, as JSON. As multipart form, `input_reference` and `images` are files."""

    model_config = ConfigDict(extra="forbid")

    prompt: str
    model: str | None = Field(default=None, description="Canonical name or alias; the first served model if left out.")
    seconds: Annotated[
        StrictStr | StrictInt | None, Field(description="Whole seconds; the model's default if left out.")
    ] = None
    size: str | None = Field(default=None, description='"WIDTHxHEIGHT", for example "1280x720".')
    input_reference: ImageInput | list[ImageInput] | None = Field(
        default=None, description="One reference image, or several."
    )
    images: list[ImageInput] | None = Field(default=None, description="Ours: reference images, in order.")
    video: MediaInput | None = Field(default=None, description="Ours: the video to continue.")
    audio: MediaInput | list[MediaInput] | None = Field(
        default=None, description="Ours: what the portrait says; one sound for each speaker. It sets the length."
    )
    masks: list[MediaInput] | None = Field(
        default=None, description="Ours: where each of two speakers is, as images of the portrait's size."
    )
    include_source: bool = Field(
        default=False, description="Ours: the continued video comes first in the file; else it holds the new part only."
    )
    guidance: float | None = Field(
        default=None, description="Ours: of the text, for models that take one; above 1 a step is several evaluations."
    )
    guidance_image: float | None = Field(default=None, description="Ours: of the reference images, beside guidance.")
    steps: int | None = Field(default=None, description="Ours: of the denoiser, for models that leave a choice.")
    aspect_ratio: str | None = Field(
        default=None, description='Ours: "16:9", "9:16", "1:1", "4:3", "3:4"; else the first image\'s.'
    )
    resolution: str | None = Field(default=None, description='Ours: resolution family, for example "720P".')
    seed: int | None = Field(default=None, description="Ours: −1 or left out = random, reported in the job.")
    negative_prompt: str | None = Field(default=None, description="Ours: with guidance above 1.")
    n: int = Field(
        default=1,
        description="Ours: how many results, with seeds `seed`, `seed` + 1 …; see `max_results` of the model.",
    )
    priority: Annotated[int, Field(ge=-10, le=10, description="Ours: larger runs earlier.")] = 0
    output_format: Container = Field(
        default=Container.MP4, description="Ours: mp4 and mov hold H.264, webm holds VP9; the preview is H.264 always."
    )
    output_quality: Annotated[
        int | None,
        Field(
            ge=QUALITIES[0],
            le=QUALITIES[1],
            description="Ours: from small to best; the default equals 82 for every format.",
        ),
    ] = None
    webhook_url: str | None = Field(default=None, description="Ours: gets a signed POST when the job has ended.")
    upload_url: str | None = Field(
        default=None, description="Ours: a presigned URL that the finished file is PUT to, before the webhook."
    )
    ttl: float | None = Field(default=None, description="Ours: seconds that the result is kept, from 60.")
    deadline_s: float | None = Field(default=None, description="Ours: fails if not finished after so many seconds.")
    include_cost: bool = Field(default=False, description="Ours: the job tells its cost.")


Status = Literal["queued", "in_progress", "completed", "failed"]

STATUS: dict[JobState, Status] = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "in_progress",
    JobState.PUBLISHING: "in_progress",
    JobState.DONE: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "failed",
    JobState.EXPIRED: "failed",
}


class VideoError(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class StageReport(BaseModel):
    """Ours: one stage of a job."""

    stage: str
    result: int
    chunk: int
    state: str
    attempt: int
    step: int
    steps: int
    waited_s: float | None
    worked_s: float | None


class ResultReport(BaseModel):
    """Ours: one result of a job. `url` is a path on this server, null until the result is published; results that are
    published stay so however the job ends, until it expires.
    """

    index: int
    seed: int
    url: str | None
    nbytes: int | None


class Video(BaseModel):
    """A video job in OpenAI's shape; fields from `phase` on are ours."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Status
    progress: int
    prompt: str
    seconds: str
    size: str
    created_at: int
    completed_at: int | None
    expires_at: int | None
    error: VideoError | None
    remixed_from_video_id: str | None = None
    phase: str
    resolution: str
    aspect_ratio: str | None
    fps: int
    frames: int
    seed: int
    output_format: Container
    output_quality: int | None
    attempts: int
    trace_id: str | None = Field(description="Ours: of the job's distributed trace, and in the operator's logs.")
    results: list[ResultReport]
    stages: list[StageReport]
    cost_usd: str | None = Field(
        default=None, description="Ours: what its published results cost, an exact decimal, when asked for."
    )


class VideoList(BaseModel):
    """A page of jobs."""

    object: Literal["list"] = "list"
    data: list[Video]
    has_more: bool
    first_id: str | None
    last_id: str | None


class VideoDeleted(BaseModel):
    """Confirmation of a delete."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class ErrorDetail(BaseModel):
    """What went wrong and what to change."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """OpenAI's error envelope."""

    error: ErrorDetail


def video(job: Job) -> Video:
    """A job as OpenAI's clients read it."""
    request = job.request
    return Video(
        id=job.id,
        model=request.model,
        status=STATUS[job.state],
        progress=100 if job.state is JobState.DONE else min(99, int(job.progress * 100)),
        prompt=request.prompt,
        seconds=str(request.duration_s),
        size=f"{request.width}x{request.height}",
        created_at=int(job.created_at.timestamp()),
        completed_at=int(job.finished_at.timestamp()) if job.state is JobState.DONE and job.finished_at else None,
        expires_at=int(job.expires_at.timestamp()) if job.expires_at else None,
        error=_error(job),
        remixed_from_video_id=request.remixed_from,
        phase=job.phase,
        resolution=request.resolution,
        aspect_ratio=request.aspect_ratio,
        fps=request.fps,
        frames=request.frames,
        seed=request.seed,
        output_format=request.output.container,
        output_quality=request.output.quality,
        trace_id=None if request.trace is None else request.trace.id,
        attempts=job.attempts,
        cost_usd=f"{job.cost_usd:f}" if request.delivery.include_cost else None,
        results=[_result(job.id, result) for result in job.results],
        stages=[
            StageReport(
                stage=stage.stage,
                result=stage.result,
                chunk=stage.chunk,
                state=stage.state.value,
                attempt=stage.attempt,
                step=stage.step,
                steps=stage.steps,
                waited_s=(
                    (stage.claimed_at - stage.ready_at).total_seconds() if stage.claimed_at and stage.ready_at else None
                ),
                worked_s=(
                    (stage.done_at - stage.claimed_at).total_seconds() if stage.done_at and stage.claimed_at else None
                ),
            )
            for stage in job.stages
        ],
    )


def _result(job_id: str, result: Result) -> ResultReport:
    file = result.artifact
    return ResultReport(
        index=result.index,
        seed=result.seed,
        url=None if file is None else f"/v1/videos/{job_id}/content?index={result.index}",
        nbytes=None if file is None else file.nbytes,
    )


def _error(job: Job) -> VideoError | None:
    reason = failure(job)
    return None if reason is None else VideoError(code=reason.code, message=reason.message)
