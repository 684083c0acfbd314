"""What ranks do in the tests of the shared VAE. Every function takes the rank's state first."""

import hashlib
import importlib

import numpy as np
import torch

from components.device import Placement
from components.usp import Layout
from components.vae import Vae
from components.vae_parallel import share_decode, share_encode
from components.values import Latents
from tests.unit.components.usp_ranks import meshes

importlib.import_module("distvae.vae")  # once in the fork server rather than in every rank


def latents(frames, rows, columns, seed=0) -> Latents:
    generator = torch.Generator().manual_seed(1000 * seed + rows)
    return Latents(torch.randn((1, 16, frames, rows, columns), generator=generator))


def video(frames, height, width) -> torch.Tensor:
    """[1, 3, F, Y, X] in [-1, 1]."""
    return torch.rand((1, 3, frames, height, width), generator=torch.Generator().manual_seed(height)) * 2 - 1


def shared_vae(state, root, degree) -> Vae:
    """This rank's, shared among `degree` neighbours, made once."""
    if (Vae, degree) not in state:
        vae, group = Vae.load(root, Placement.of("cpu")), meshes(state)[Layout(degree)].get_group("ulysses")
        share_decode(vae, group)
        share_encode(vae, group)
        state[Vae, degree] = vae
    return state[Vae, degree]


def decode(state, root, degree, sizes) -> list[tuple[str, np.ndarray | None]]:
    """A digest of every clip, and from the first rank the clip too: fp32 [3, F, Y, X]."""
    vae = shared_vae(state, root, degree)
    clips = [torch.cat(list(vae.decode_float(latents(*size))), dim=2)[0].numpy() for size in sizes]
    return [(hashlib.sha256(clip.tobytes()).hexdigest(), clip if state["rank"] == 0 else None) for clip in clips]


@torch.no_grad()
def decode_fp64(model, size) -> np.ndarray:
    """A clip in double precision, frame by frame, before it is clamped: [3, F, Y, X]."""
    model.double()
    hidden_BCTHW = model.post_quant_conv(latents(*size).video_BCTHW.double())
    cache = [None] * 64  # more entries than it has convolutions
    chunks = [
        model.decoder(hidden_BCTHW[:, :, t : t + 1], feat_cache=cache, feat_idx=[0], first_chunk=t == 0)
        for t in range(size[0])
    ]
    model.float()
    return torch.cat(chunks, dim=2)[0].numpy()


def decode_shared_fp64(state, root, degree, size) -> np.ndarray:
    return decode_fp64(shared_vae(state, root, degree).model, size)


def decode_levels(state, root, degree, size) -> np.ndarray:
    return np.concatenate(list(shared_vae(state, root, degree).decode(latents(*size))))


def decode_two_at_once(state, root, degree, size) -> list[np.ndarray]:
    vae = shared_vae(state, root, degree)
    both = zip(vae.decode(latents(*size, seed=0)), vae.decode(latents(*size, seed=1)), strict=True)
    return [np.concatenate(clip) for clip in zip(*both, strict=True)]


def decode_one_chunk(state, root, degree, size) -> None:
    """Stops early, as all ranks do."""
    next(shared_vae(state, root, degree).decode(latents(*size)))


def encode(state, root, degree, size) -> tuple[np.ndarray, np.ndarray]:
    mean, logvar = shared_vae(state, root, degree).encode(video(*size))
    return mean.numpy(), logvar.numpy()


def encode_references(state, root, degree, size) -> np.ndarray:
    images_KCYX = video(*size)[0].transpose(0, 1)
    return shared_vae(state, root, degree).encode_references(images_KCYX).mean_KCHW.numpy()


def kept_bytes(state, root, degree) -> tuple[int, int]:
    """How many parts of the VAE have receive buffers, and the bytes in them."""
    parts = [part for part in shared_vae(state, root, degree).model.modules() if hasattr(part, "halo_buffer")]
    return len(parts), sum(tensor.nbytes for part in parts for tensor in part.halo_buffer.values())


def share_again(state, root, degree) -> None:
    share_decode(shared_vae(state, root, degree))


def share_alone(state, root) -> bool:
    """Whether sharing with nobody leaves the modules as they are."""
    vae = Vae.load(root, Placement.of("cpu"))
    before = [type(part) for part in vae.model.modules()]
    alone = [torch.distributed.new_group([rank]) for rank in range(torch.distributed.get_world_size())]
    share_decode(vae, alone[state["rank"]])
    share_encode(vae, alone[state["rank"]])
    return [type(part) for part in vae.model.modules()] == before
