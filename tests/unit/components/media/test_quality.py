"""One scale for every encoder."""

from __future__ import annotations

from itertools import pairwise

import pytest

from components.media.quality import DEFAULT_CRF, h264_crf, vp9_crf


def test_better_never_costs_less_and_the_default_is_on_the_scale() -> None:
    scale = range(20, 100)
    for crf, worst in ((h264_crf, 51), (vp9_crf, 63)):
        values = [crf(quality) for quality in scale]
        assert all(later <= earlier for earlier, later in pairwise(values))
        assert worst >= values[0] > values[-1] > 0
        assert crf(None) == crf(82)
    assert (h264_crf(20), h264_crf(None), h264_crf(99)) == (40, DEFAULT_CRF, 12)


@pytest.mark.parametrize("quality", [19, 100, -1])
def test_off_the_scale(quality: int) -> None:
    with pytest.raises(ValueError, match="20 to 99"):
        h264_crf(quality)
