"""The media of a task and what its model demands of each: kind, length, size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cluster.errors import MediaRejected
from cluster.files import FileInfo
from cluster.registry import Known
from deployments.api.runware.schemas import VideoInference
from deployments.api.sources import Reference, parse_source

GROUPS = "inputs.referenceImages"
FRAMES = "inputs.frameImages"
VIDEOS = "inputs.referenceVideos"


@dataclass(frozen=True, slots=True)
class Medium:
    """One medium of a task and what it must be."""

    reference: Reference
    kind: Literal["image", "audio", "video"]


def images(task: VideoInference) -> list[Reference]:
    """All reference images in their order. InvalidRequest."""
    return [
        _reference(text, f"{GROUPS}[{group}].images[{index}]")
        for group, item in enumerate(task.inputs.referenceImages or ())
        for index, text in enumerate(item.images)
    ]


def media(task: VideoInference) -> list[Medium]:
    """Every medium of a task. InvalidRequest."""
    found = [Medium(reference, "image") for reference in images(task)]
    for index, group in enumerate(task.inputs.referenceImages or ()):
        if group.audio is not None:
            found.append(Medium(_reference(group.audio, f"{GROUPS}[{index}].audio"), "audio"))
    for index, frame in enumerate(task.inputs.frameImages or ()):
        found.append(Medium(_reference(frame.image, f"{FRAMES}[{index}].image"), "image"))
    for index, video in enumerate(task.inputs.referenceVideos or ()):
        found.append(Medium(_reference(video.video, f"{VIDEOS}[{index}].video"), "video"))
    return found


def given(task: VideoInference) -> list[Reference]:
    """All media of a task that becomes a job, each with its kind; the last frame behind the first. InvalidRequest."""
    found = [replace(medium.reference, kind=medium.kind) for medium in media(task)]
    last = {
        f"{FRAMES}[{index}].image" for index, item in enumerate(task.inputs.frameImages or ()) if item.frame == "last"
    }
    return sorted(found, key=lambda reference: reference.param in last)


def check_medium(model: Known, medium: Medium, info: FileInfo) -> None:
    """Refuses a medium that is not what its place in the task demands.

    Raises:
        MediaRejected: another kind, too long, too small.
    """
    limits, param = model.limits, medium.reference.param
    if info.kind != medium.kind:
        wanted = {"image": "an image", "audio": "sound", "video": "a video"}[medium.kind]
        raise MediaRejected(f"{param} must be {wanted}; the file is {info.media_type}.", param=param)
    if medium.kind != "image" and info.duration_s is not None and info.duration_s > limits.max_media_s:
        raise MediaRejected(
            f"{param} must last at most {limits.max_media_s:g} seconds; the file lasts {info.duration_s:g}.",
            param=param,
        )
    pixels = (info.width or 0) * (info.height or 0)
    if medium.kind == "video" and pixels < limits.min_video_pixels:
        raise MediaRejected(
            f"{param} must have at least {limits.min_video_pixels} pixels; the file has {info.width}x{info.height}.",
            param=param,
        )


def _reference(text: str, param: str) -> Reference:
    return Reference(parse_source(text, param=param), param)
