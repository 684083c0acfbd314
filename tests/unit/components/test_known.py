import pytest
import torch

from components.known import encode_known
from components.values import Pixels

FRAMES, SIZE = 25, (32, 48)


def picture(count, seed):
    return torch.rand((3, count, *SIZE), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def whole(first, key):
    clip = torch.zeros((3, FRAMES, *SIZE))
    clip[:, : first.shape[1]] = first
    if key is not None:
        clip[:, -5:] = key
    return clip[None]


@pytest.mark.parametrize(("count", "keyed"), [(1, False), (1, True), (5, True)])
def test_it_is_the_condition_clip_encoded_at_once(avatar_vae, count, keyed):
    first, key = picture(count, 0), picture(1, 1) if keyed else None
    known = encode_known(avatar_vae, Pixels(first), None if key is None else Pixels(key), FRAMES)
    mean, _ = avatar_vae.encode(whole(first, key))
    latents = avatar_vae.scale.normalise(mean)
    assert torch.allclose(known.known_BCTHW[:, 4:], latents, atol=1e-5)
    held = 2 if count == 5 else 0
    assert torch.allclose(known.motion_BCKHW, latents[:, :, :held], atol=1e-5)
    mask = known.known_BCTHW[0, :4, :, 0, 0].T  # by latent frame
    assert mask[0].tolist() == [1] * 4
    assert mask[1].tolist() == [float(count == 5)] * 4
    assert mask[2:-2].sum() == 0
    assert mask[-2:].flatten().tolist() == ([0, 0, 0, 1, 1, 1, 1, 1] if keyed else [0] * 8)


def test_misfits_are_refused(avatar_vae):
    for first, key, frames in ((2, None, 25), (1, None, 24), (1, 2, 25), (25, 1, 25)):
        with pytest.raises(ValueError, match=r"known frames do not fit|key frame is one"):
            encode_known(avatar_vae, Pixels(picture(first, 0)), key and Pixels(picture(key, 1)), frames)
