"""The VAE shared among ranks: each computes a band of rows of every frame, and all get the whole frame.

Base: distvae. It replaces every convolution by one that first exchanges the rows its kernel reaches across a border,
and gathers the middle block's attention. The feature cache of the streamed decode then holds this rank's rows only, so
the streaming of `components.vae` is as before. Bands may be uneven. The result equals that of one process up to
the order of additions: a decode in fp64 to 1e-15, in fp32 to 1.5e-5 of [0, 1] at worst over all bucket heights (a toy
model, where one process is itself 4e-6 off its result in fp64); an encode in fp32 to 3e-7.

Two things are added here. A picture with fewer latent rows than ranks is refused before any rank talks to another. And
distvae keeps its receive buffers for every width it has ever seen, with the released model 132 MB per border for one of
1280 pixels (from the shapes); here they are dropped after every call.

It pays where one clip must be quick; for many clips, as many single replicas decode more, as nothing is exchanged.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch.distributed as dist

from components.errors import Unsupported
from components.vae import STRIDE_S, Vae


def share_decode(vae: Vae, group: dist.ProcessGroup | None = None) -> None:
    """From here on every decode of this VAE is shared among the group; there is no way back.

    All ranks make the same calls with the same latents in the same order, and each gets the whole result. A chunk
    comes only when all ranks ask for it, so whoever stops early stops everywhere after the same chunk
    (`components.usp.highest`); ranks that need no pixels run through `decode_float` and let them fall.

    Args:
        vae: on this rank's device, with the same weights on every rank.
        group: the ranks; None for all of the world. A group of one changes nothing.

    Raises:
        Unsupported: distvae is not installed, the VAE is none it can share, or it is shared already. Later, from the
            decode's first chunk, on all ranks alike: the picture has fewer latent rows than there are ranks.
    """
    if (degree := dist.get_world_size(group)) > 1:
        library = _library()
        _refuse_unknown(library.decoder_adapter_name(vae.model))
        library.parallelize_decoder(vae.model, group)
        _arrange(vae.model.decoder, degree, pixels_per_row=1)


def share_encode(vae: Vae, group: dist.ProcessGroup | None = None) -> None:
    """The same for every encode, of clips and of references."""
    if (degree := dist.get_world_size(group)) > 1:
        library = _library()
        _refuse_unknown(library.encoder_adapter_name(vae.model))
        library.parallelize_encoder(vae.model, group)
        _arrange(vae.model.encoder, degree, pixels_per_row=STRIDE_S)


def _library() -> Any:
    try:
        return importlib.import_module("distvae.vae")
    except ImportError as error:
        raise Unsupported(
            "Sharing the VAE among ranks needs the package distvae; install skyreels-serve[parallel-vae]."
        ) from error


def _refuse_unknown(adapter: str | None) -> None:
    if adapter is None:
        raise Unsupported("This VAE cannot be shared among ranks: it is shared already, or distvae does not know it.")


def _arrange(half: Any, degree: int, pixels_per_row: int) -> None:
    """Refuses what is too thin before the ranks talk, and drops the receive buffers after they did."""
    buffers: list[dict[Any, Any]] = [part.halo_buffer for part in half.modules() if hasattr(part, "halo_buffer")]

    def refuse_thin(_half: Any, args: tuple[Any, ...]) -> None:
        # A band needs one latent row: the neighbours' kernels reach one row across the border.
        rows = args[0].shape[-2] // pixels_per_row
        if rows < degree:
            raise Unsupported(
                f"A picture {rows * STRIDE_S} pixels high has {rows} latent rows, too few for {degree} ranks; share "
                f"the VAE among at most {rows}."
            )

    def drop_buffers(*_: Any) -> None:
        for buffer in buffers:
            buffer.clear()

    half.register_forward_pre_hook(refuse_thin)
    half.register_forward_hook(drop_buffers)
