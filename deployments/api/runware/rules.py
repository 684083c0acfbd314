"""What a `videoInference` task may ask of its model: the registry's limits in Runware's words.

Everything is checked for a known model, served or not; `offered` then refuses what no part of this installation does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from cluster.canonical import sizes
from cluster.errors import InvalidRequest
from cluster.plans import BUCKETS, Size
from cluster.registry import Known
from deployments.api.runware.media import FRAMES, GROUPS, VIDEOS, media
from deployments.api.runware.schemas import FrameImage, ReferenceImages, VideoInference
from deployments.api.sources import FileSource, UrlSource

_MENTION = re.compile(r"(?<![\w@])@[\w-]{1,63}", re.ASCII)
# Of families without a table of exact sizes: the side of the square with as many pixels.
_SIDES: Mapping[str, int] = {"480P": 640, "720P": 960, "1080P": 1440}
_SIDE_STEP = 8
_TOLERANCE = 0.03  # of aspect and area: sides are rounded


def check_task(model: Known, task: VideoInference) -> None:
    """Refuses what the model cannot be asked for, as far as it shows without the media.

    Raises:
        InvalidRequest: the first violated rule, with the parameter at fault.
    """
    _check_prompt(task)
    _check_duration(model, task)
    _check_size(model, task)
    _check_groups(model, task.inputs.referenceImages or [])
    _check_frames(model, task.inputs.frameImages or [], task.duration)
    _check_videos(model, task)
    _check_sources(task)
    _check_tags(task)
    if task.settings.audio and not model.limits.sound:
        raise InvalidRequest(f"{model.name} makes no sound; leave settings.audio out.", param="settings.audio")


def offered(task: VideoInference) -> None:
    """Refuses what is valid and not served here. InvalidRequest."""
    if task.safety.checkContent or task.safety.mode != "none":
        param = "safety.checkContent" if task.safety.checkContent else "safety.mode"
        raise InvalidRequest(f"No content checker is served here; leave {param} out.", param=param)


def family(task: VideoInference) -> str | None:
    """The resolution as the registry writes it."""
    return None if task.resolution is None else task.resolution.upper()


def size(task: VideoInference) -> Size | None:
    """(height, width) when the task gives it."""
    return None if task.width is None or task.height is None else (task.height, task.width)


def _check_prompt(task: VideoInference) -> None:
    if not task.positivePrompt.strip():
        raise InvalidRequest("positivePrompt must not be empty.", param="positivePrompt")


def _check_duration(model: Known, task: VideoInference) -> None:
    limits = model.limits
    if task.duration is None or limits.timed_by_audio:  # which says later that it takes none
        return
    if not limits.min_duration_s <= task.duration <= limits.max_duration_s:
        raise InvalidRequest(
            f"duration must be {limits.min_duration_s} to {limits.max_duration_s} seconds for {model.name}; "
            f"got {task.duration:g}.",
            param="duration",
        )
    if limits.whole_seconds and not task.duration.is_integer():
        raise InvalidRequest(
            f"duration must be whole seconds for {model.name}; got {task.duration:g}.", param="duration"
        )


def _check_size(model: Known, task: VideoInference) -> None:
    limits = model.limits
    given = size(task)
    if (task.width is None) != (task.height is None):
        missing = "width" if task.width is None else "height"
        raise InvalidRequest("width and height must be given together.", param=missing)
    if given is not None and task.resolution is not None:
        raise InvalidRequest("Give either width and height or resolution, not both.", param="resolution")
    if task.resolution is not None and family(task) not in limits.resolutions:
        listed = ", ".join(name.lower() for name in limits.resolutions)
        raise InvalidRequest(
            f"resolution must be one of {listed} for {model.name}; got {task.resolution!r}.", param="resolution"
        )
    if given is not None and not _has_size(model, given):
        families = ", ".join(name.lower() for name in limits.resolutions)
        raise InvalidRequest(
            f"{model.name} makes no video of {given[1]}x{given[0]}; give a resolution ({families}), or a width and "
            f"height of one in the aspect {', '.join(limits.aspect_ratios)}.",
            param="width",
        )
    framed = bool(task.inputs.frameImages or task.inputs.referenceVideos)
    if (limits.max_frame_images or limits.max_videos) and not framed and given is None and task.resolution is None:
        raise InvalidRequest(
            f"Give {FRAMES}, {VIDEOS}, width and height, or resolution: {model.name} takes the size from one of them.",
            param="resolution",
        )


def _has_size(model: Known, given: Size) -> bool:
    if all(name in BUCKETS for name in model.limits.resolutions):
        return given in sizes(model)
    height, width = given
    ratios = [int(wide) / int(high) for wide, high in (aspect.split(":") for aspect in model.limits.aspect_ratios)]
    areas = [_SIDES[name] ** 2 for name in model.limits.resolutions]
    return (
        height % _SIDE_STEP == width % _SIDE_STEP == 0
        and any(abs(width / height / ratio - 1) <= _TOLERANCE for ratio in ratios)
        and any(abs(width * height / area - 1) <= _TOLERANCE for area in areas)
    )


def _check_groups(model: Known, groups: Sequence[ReferenceImages]) -> None:
    limits = model.limits
    if groups and not limits.group_types:
        raise InvalidRequest(f"{model.name} takes no groups of reference images.", param=GROUPS)
    if len({group.type for group in groups}) > 1:
        raise InvalidRequest(f"All items of {GROUPS} must have the same type.", param=GROUPS)
    for index, group in enumerate(groups):
        param = f"{GROUPS}[{index}]"
        if group.type not in limits.group_types:
            listed = ", ".join(limits.group_types)
            raise InvalidRequest(
                f"{param}.type must be one of {listed} for {model.name}; got {group.type!r}.", param=f"{param}.type"
            )
        if group.type == "grid" and (len(groups) > 1 or len(group.images) > 1):
            raise InvalidRequest("A grid is one collage: one item with one image.", param=GROUPS)
        if group.audio is not None:
            _check_voice(model, group, f"{param}.audio")
    count = sum(len(group.images) for group in groups)
    if not limits.group_types and limits.max_frame_images:  # its images are frames
        return
    if not limits.min_images <= count <= limits.max_images:
        raise InvalidRequest(
            f"{model.name} takes {limits.min_images} to {limits.max_images} reference images; got {count}.",
            param=GROUPS,
        )


def _check_voice(model: Known, group: ReferenceImages, param: str) -> None:
    if not model.limits.voice:
        raise InvalidRequest(f"{model.name} takes no voice; leave {param} out.", param=param)
    if group.type == "grid":
        raise InvalidRequest("A collage has no voice; give it to an item of type image.", param=param)


def _check_frames(model: Known, frames: Sequence[FrameImage], duration: float | None) -> None:
    limits = model.limits
    if len(frames) > limits.max_frame_images:
        allowed = f"at most {limits.max_frame_images}" if limits.max_frame_images else "no"
        raise InvalidRequest(f"{model.name} takes {allowed} frame images; got {len(frames)}.", param=FRAMES)
    if not limits.group_types and limits.max_frame_images:
        _check_ends(model, frames)
    last = round((duration or limits.default_duration_s) * model.fps) - 1
    for index, item in enumerate(frames):
        if isinstance(item.frame, int) and item.frame > last:
            param = f"{FRAMES}[{index}].frame"
            raise InvalidRequest(f"{param} must be 0 to {last}, the last frame; got {item.frame}.", param=param)
    places = Counter({"first": 0, "last": last}.get(str(item.frame), item.frame) for item in frames)
    del places[None]
    if any(count > 1 for count in places.values()):
        raise InvalidRequest("Two frame images have the same position.", param=FRAMES)


def _check_ends(model: Known, frames: Sequence[FrameImage]) -> None:
    """Of models that begin with an image, and perhaps end with one."""
    if len(frames) < model.limits.min_images:
        raise InvalidRequest(f"{model.name} begins with an image; give it in {FRAMES}.", param=FRAMES)
    for index, item in enumerate(frames):
        if item.frame not in {None, "first", "last", 0}:
            param = f"{FRAMES}[{index}].frame"
            raise InvalidRequest(f"{param} must be first or last for {model.name}; got {item.frame}.", param=param)
    if frames and all(item.frame == "last" for item in frames):
        raise InvalidRequest(f"{model.name} needs the first frame beside the last; give both.", param=FRAMES)


def _check_videos(model: Known, task: VideoInference) -> None:
    limits, videos = model.limits, task.inputs.referenceVideos or []
    if len(videos) > limits.max_videos:
        raise InvalidRequest(f"{model.name} takes no reference video.", param=VIDEOS)
    if videos and task.inputs.referenceImages:
        raise InvalidRequest("Reference images cannot be combined with reference videos.", param=VIDEOS)
    for index, item in enumerate(videos):
        if limits.min_videos and item.type != "extend":
            param = f"{VIDEOS}[{index}].type"
            raise InvalidRequest(f"{param} must be extend for {model.name}; got {item.type!r}.", param=param)
        if item.type == "reference" and task.settings.audio:
            raise InvalidRequest(
                "A reference video of type reference brings its own sound; leave settings.audio out.",
                param="settings.audio",
            )


def _check_sources(task: VideoInference) -> None:
    """Every medium is named in a known form; voices and videos come by URL or as uploaded files."""
    for medium in media(task):
        param = medium.reference.param
        if medium.kind != "image" and not isinstance(medium.reference.source, UrlSource | FileSource):
            raise InvalidRequest(f"{param} must be a URL or the id of an uploaded file.", param=param)


def _check_tags(task: VideoInference) -> None:
    """Every tag is mentioned; where there are tags, every mention is one."""
    groups, videos = task.inputs.referenceImages or [], task.inputs.referenceVideos or []
    named = [(group.tag, f"{GROUPS}[{index}].tag") for index, group in enumerate(groups)]
    named += [(video.tag, f"{VIDEOS}[{index}].tag") for index, video in enumerate(videos)]
    mentions = set(_MENTION.findall(task.positivePrompt))
    tags: set[str] = set()
    for tag, param in named:
        if tag in tags:
            raise InvalidRequest(f"{param}: {tag} is used twice.", param=param)
        if tag not in mentions:
            raise InvalidRequest(f"{param}: positivePrompt does not mention {tag}.", param=param)
        tags.add(tag)
    if tags and (stray := sorted(mentions - tags)):
        raise InvalidRequest(
            f"positivePrompt mentions {', '.join(stray)}, which is no item's tag.", param="positivePrompt"
        )
