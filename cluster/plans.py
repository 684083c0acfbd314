"""Integer geometry: buckets, frames, latents, tokens. Pure functions of sizes, exact by construction.

Sizes are (height, width) in pixels. Wan2.1's VAE has stride (4, 8, 8) and its DiT patches (1, 2, 2), so one
token covers one latent frame × 16 × 16 pixels and every side is a multiple of 16.

The bucket tables are the released models' (values are facts of the checkpoints; goldens `preproc_buckets`):
the key nearest to height / width names the row, and both sides are floored to a multiple of 16. The keys are the
tables' own rounded ratios, not the exact ones: the choice must use them to agree with the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.errors import InvalidRequest

VAE_STRIDE_T = 4
VAE_STRIDE_S = 8
TOKEN_PIXELS = 16  # one token's side: VAE stride × patch

Size = tuple[int, int]

BUCKETS: Mapping[str, Mapping[float, Size]] = {
    # Toy sizes for tiny checkpoints, same rule.
    "64P": {
        0.38: (48, 128), 0.57: (64, 112), 0.71: (80, 112), 1.00: (80, 80),
        1.40: (112, 80), 1.75: (112, 64), 2.67: (128, 48),
    },
    "480P": {
        0.38: (392, 1046), 0.43: (420, 980), 0.48: (444, 925), 0.50: (452, 904), 0.53: (466, 880),
        0.54: (470, 870), 0.56: (480, 854), 0.62: (506, 810), 0.67: (522, 784), 0.75: (554, 738),
        1.00: (640, 640), 1.33: (740, 555), 1.50: (784, 522), 1.78: (854, 480), 1.89: (880, 466),
        2.00: (906, 454), 2.08: (924, 444),
    },
    "540P": {
        0.34: (416, 1216), 0.38: (464, 1216), 0.40: (464, 1152), 0.43: (496, 1152), 0.48: (496, 1024),
        0.50: (512, 1024), 0.53: (512, 960), 0.57: (544, 960), 0.60: (544, 912), 0.63: (576, 912),
        0.67: (576, 864), 0.72: (624, 864), 0.75: (624, 832), 0.79: (656, 832), 0.84: (656, 784),
        0.92: (720, 784), 1.00: (720, 720), 1.09: (784, 720), 1.26: (784, 624), 1.33: (832, 624),
        1.40: (832, 592), 1.49: (880, 592), 1.62: (880, 544), 1.78: (960, 544), 1.88: (960, 512),
        2.00: (1024, 512), 2.13: (1024, 480),
    },
    "720P": {
        0.38: (588, 1568), 0.43: (628, 1466), 0.48: (666, 1388), 0.50: (678, 1356), 0.53: (698, 1318),
        0.54: (706, 1306), 0.56: (720, 1280), 0.62: (758, 1212), 0.67: (784, 1176), 0.75: (832, 1110),
        1.00: (960, 960), 1.33: (1108, 832), 1.50: (1176, 784), 1.78: (1280, 720), 1.89: (1320, 698),
        2.00: (1358, 680), 2.08: (1386, 666),
    },
}  # fmt: skip

AVATAR_BUCKETS: Mapping[str, Mapping[float, Size]] = {
    "64P": {0.57: (64, 112), 1.00: (80, 80), 1.75: (112, 64)},
    "480P": {
        0.26: (320, 1216), 0.38: (384, 1024), 0.5: (448, 896), 0.577: (480, 832), 0.67: (512, 768), 0.82: (576, 704),
        1.0: (640, 640), 1.22: (704, 576), 1.5: (768, 512), 1.86: (832, 448), 1.73: (832, 480), 2.0: (896, 448),
        2.5: (960, 384), 2.83: (1088, 384), 3.6: (1152, 320), 3.8: (1216, 320), 4.0: (1280, 320),
    },
    "720P": {
        0.22: (448, 2048), 0.29: (512, 1792), 0.36: (576, 1600), 0.45: (640, 1408), 0.55: (704, 1280),
        0.56: (720, 1280), 0.63: (768, 1216), 0.76: (832, 1088), 0.88: (896, 1024), 1.0: (960, 960),
        1.14: (1024, 896), 1.31: (1088, 832), 1.5: (1152, 768), 1.58: (1216, 768), 1.82: (1280, 704),
        1.78: (1280, 720), 1.91: (1344, 704), 2.2: (1408, 640), 2.3: (1472, 640), 2.67: (1536, 576),
        2.89: (1664, 576), 3.62: (1856, 512), 3.75: (1920, 512),
    },
}  # fmt: skip
"""The talking avatar's own tables, same rule; all sides are multiples of 16 already.

The original names 540P too but has no table for it. It is given the reference model's: those sizes are within the areas
of the two tables here, and a 540P avatar has the size of any other 540P video of its aspect.
"""
PORTRAITS: Mapping[str, Mapping[float, Size]] = {**AVATAR_BUCKETS, "540P": BUCKETS["540P"]}
PAIRS: Mapping[str, Mapping[float, Size]] = {
    "64P": {0.5: (64, 112), 1.5: (112, 64)},
    "540P": {0.5: (544, 960), 1.5: (960, 544)},
    "720P": {0.5: (720, 1280), 1.5: (1280, 720)},
}
"""The two sizes of V2's models. The keys make whatever is higher than wide upright, and a square wide."""


def floor16(pixels: int) -> int:
    """The largest multiple of 16 that is not above `pixels`."""
    return pixels // TOKEN_PIXELS * TOKEN_PIXELS


def bucket(family: str, height: int, width: int, tables: Mapping[str, Mapping[float, Size]] = BUCKETS) -> Size:
    """The output size (height, width) for a source of the given size in a resolution family of `tables`.

    Raises:
        InvalidRequest: the family does not exist.
    """
    table = tables.get(family)
    if table is None:
        raise InvalidRequest(
            f"Resolution {family!r} does not exist; use one of {', '.join(sorted(tables))}.", param="resolution"
        )
    ratio = height / width
    key = min(table, key=lambda candidate: abs(candidate - ratio))
    bucket_height, bucket_width = table[key]
    return floor16(bucket_height), floor16(bucket_width)


def aspect_bucket(family: str, aspect_ratio: str, tables: Mapping[str, Mapping[float, Size]] = BUCKETS) -> Size:
    """The output size for an explicit aspect "W:H".

    Raises:
        InvalidRequest: the aspect is not of that form, or the family does not exist.
    """
    try:
        width, height = (int(part) for part in aspect_ratio.split(":"))
    except ValueError:
        width = height = 0
    if width <= 0 or height <= 0:
        raise InvalidRequest(f"Aspect ratio {aspect_ratio!r} must look like '16:9'.", param="aspect_ratio")
    return bucket(family, height, width, tables)


def clip_frames(duration_s: int, fps: int) -> int:
    """Pixel frames of a clip: fps·d + 1, so that the VAE's first frame stands alone."""
    return fps * duration_s + 1


def latent_frames(frames: int) -> int:
    """Latent frames of a clip of `frames` = 4k + 1 pixel frames.

    Raises:
        ValueError: the number is not of that form.
    """
    if frames < 1 or (frames - 1) % VAE_STRIDE_T:
        raise ValueError(f"{frames} frames is not of the form 4k + 1")
    return (frames - 1) // VAE_STRIDE_T + 1


@dataclass(frozen=True, slots=True)
class Roll:
    """One link of an extension: frames that are known, and latent frames that are made in one denoising run."""

    prefix_frames: int  # of the source or of the roll before, 4k + 1
    new_latents: int
    together: bool  # prefix and new frames are decoded as one clip; else the new ones alone

    @property
    def prefix_latents(self) -> int:
        return latent_frames(self.prefix_frames)

    @property
    def decoded_latents(self) -> int:
        return self.new_latents + (self.prefix_latents if self.together else 0)

    @property
    def decoded_frames(self) -> int:
        return VAE_STRIDE_T * (self.decoded_latents - 1) + 1

    @property
    def dropped_frames(self) -> int:
        """Of the decoded ones, from the start: the prefix over again."""
        return self.prefix_frames if self.together else 0

    @property
    def kept_frames(self) -> int:
        return self.decoded_frames - self.dropped_frames


EXTENSION_FPS = 24
EXTENSION_PREFIX = 25
"""Frames that a roll continues, and hands over to the next: its last decoded ones."""
MAX_EXTENSION_S = 30
_ROLL_S = 5
_LATENTS_PER_S = 6
_SHARE = 8  # a roll's latent frames are a multiple of it, so that 2, 4 or 8 ranks share them evenly
_SHOT_PREFIX = {2: 9, 3: 17, 4: 25, 5: 33}  # seconds → frames of the source


def extension_rolls(duration_s: int) -> tuple[Roll, ...]:
    """The rolls of a single-shot extension.

    The duration is cut into rolls of 5 s at 6 latent frames per second. Prefix and new frames of a roll are rounded up
    to a multiple of 8 together, and the next roll makes as many frames less. So the result is somewhat longer.

    Raises:
        InvalidRequest: the duration is not 1 … 30 s.
    """
    if not 1 <= duration_s <= MAX_EXTENSION_S:
        raise InvalidRequest(f"An extension lasts 1 to {MAX_EXTENSION_S} s, not {duration_s}.", param="duration")
    prefix, surplus, rolls = latent_frames(EXTENSION_PREFIX), 0, []
    for start_s in range(0, duration_s, _ROLL_S):
        wanted = _LATENTS_PER_S * min(_ROLL_S, duration_s - start_s) - surplus
        new_latents = -(-(prefix + wanted) // _SHARE) * _SHARE - prefix
        surplus = new_latents - wanted
        rolls.append(Roll(EXTENSION_PREFIX, new_latents, together=True))
    return tuple(rolls)


def extension_frames(duration_s: int) -> int:
    """New pixel frames of a single-shot extension. InvalidRequest."""
    return sum(roll.kept_frames for roll in extension_rolls(duration_s))


def shot_roll(duration_s: int) -> Roll:
    """The one roll of a shot switch: 24 · duration + 1 new frames.

    Raises:
        InvalidRequest: the duration is not 2 … 5 s.
    """
    if duration_s not in _SHOT_PREFIX:
        raise InvalidRequest(
            f"A shot switch lasts {min(_SHOT_PREFIX)} to {max(_SHOT_PREFIX)} s, not {duration_s}.", param="duration"
        )
    new_latents = latent_frames(clip_frames(duration_s, EXTENSION_FPS))
    return Roll(_SHOT_PREFIX[duration_s], new_latents, together=False)
