"""Toy checkpoints in the releases' own file layouts: the real loaders, code and graph with small seeded weights."""

from collections.abc import Callable, Mapping

from components.tiny.avatar import write_avatar
from components.tiny.extension import write_extension
from components.tiny.hunyuan import write_v1_i2v, write_v1_t2v
from components.tiny.r2v import write_r2v
from components.tiny.release import TinySizes

__all__ = [
    "BY_NAME",
    "WRITERS",
    "TinySizes",
    "write_avatar",
    "write_extension",
    "write_r2v",
    "write_v1_i2v",
    "write_v1_t2v",
]

WRITERS: Mapping[str, Callable[..., None]] = {  # by task; two tasks have their weights in one checkpoint
    "reference_to_video": write_r2v,
    "single_shot_extension": write_extension,
    "shot_switching_extension": write_extension,
    "talking_avatar": write_avatar,
    "hunyuan_text_to_video": write_v1_t2v,
    "hunyuan_image_to_video": write_v1_i2v,
}
BY_NAME: Mapping[str, Callable[..., None]] = {  # by the folder that profiles give them
    "tiny-r2v": write_r2v,
    "tiny-v2v": write_extension,
    "tiny-a2v": write_avatar,
    "tiny-v1-t2v": write_v1_t2v,
    "tiny-v1-i2v": write_v1_i2v,
}
