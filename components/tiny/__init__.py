"""Toy checkpoints in the releases' own file layouts: the real loaders, code and graph with small seeded weights."""

from collections.abc import Callable, Mapping
from functools import partial

from components.tiny.avatar import write_avatar
from components.tiny.extender import write_extender
from components.tiny.extension import write_extension
from components.tiny.hunyuan import write_v1_i2v, write_v1_t2v
from components.tiny.r2v import write_r2v
from components.tiny.release import TinySizes
from components.tiny.v2 import write_df, write_i2v, write_t2v

__all__ = [
    "BY_NAME",
    "WRITERS",
    "TinySizes",
    "write_avatar",
    "write_df",
    "write_extender",
    "write_extension",
    "write_i2v",
    "write_r2v",
    "write_t2v",
    "write_v1_i2v",
    "write_v1_t2v",
]

WRITERS: Mapping[str, Callable[..., None]] = {  # by task; two tasks have their weights in one checkpoint
    "reference_to_video": write_r2v,
    "single_shot_extension": write_extension,
    "shot_switching_extension": write_extension,
    "talking_avatar": write_avatar,
    "text_to_video": write_t2v,
    "image_to_video": write_i2v,
    "diffusion_forcing": write_df,
    "prompt_extension": write_extender,
    "hunyuan_text_to_video": write_v1_t2v,
    "hunyuan_image_to_video": write_v1_i2v,
}
BY_NAME: Mapping[str, Callable[..., None]] = {  # by the folder that profiles give them
    "tiny-r2v": write_r2v,
    "tiny-v2v": write_extension,
    "tiny-a2v": write_avatar,
    "tiny-t2v": write_t2v,
    "tiny-i2v": write_i2v,
    "tiny-df": write_df,
    "tiny-t2v-diffusers": partial(write_t2v, library=True),
    "tiny-i2v-diffusers": partial(write_i2v, library=True),
    "tiny-df-diffusers": partial(write_df, library=True),
    "tiny-extender": write_extender,
    "tiny-v1-t2v": write_v1_t2v,
    "tiny-v1-i2v": write_v1_i2v,
}
