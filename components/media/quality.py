"""One scale of quality for every encoder: 20 (small) to 99 (best)."""

from __future__ import annotations

DEFAULT_CRF = 18  # H.264; visually lossless
_BEST, _SMALLEST = 12, 40  # the H.264 rate factors of 99 and 20
_SCALE = (20, 99)


def h264_crf(quality: int | None) -> int:
    """The H.264 rate factor of a quality: 40 at 20, falling evenly to 12 at 99; the default (None) equals 82.

    Never rises with the quality. ValueError outside 20 … 99.
    """
    if quality is None:
        return DEFAULT_CRF
    low, high = _SCALE
    if not low <= quality <= high:
        raise ValueError(f"quality must be {low} to {high}, not {quality}")
    return round(_SMALLEST - (quality - low) * (_SMALLEST - _BEST) / (high - low))


def vp9_crf(quality: int | None) -> int:
    """The VP9 rate factor of a quality: the H.264 one, stretched from 0 … 51 to 0 … 63."""
    return round(h264_crf(quality) * 63 / 51)
