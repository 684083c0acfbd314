"""The world of ranks: joining and leaving it, agreeing on a word, and the device meshes of every layout.

Every function here is collective: all ranks call it in the same order, or all wait until the timeout. After any error
the world is broken (a rank may be in another collective than its peers): end its processes and start a new one.
"""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from components.errors import Unsupported
from components.usp.layout import SINGLE, Layout, layouts, partition

_BACKENDS = {
    "gloo": "gloo",
    "nccl": "cpu:gloo,cuda:nccl",  # words travel over gloo, so that they never queue behind the GPU's work
}


def init_group(*, rank: int, world_size: int, address: str, port: int, timeout_s: float, backend: str = "gloo") -> None:
    """Joins the world; returns when all ranks have.

    Args:
        rank: 0 … world_size − 1.
        world_size: number of ranks.
        address: host name or IP of rank 0, reachable by all.
        port: a free TCP port there.
        timeout_s: longest wait of one collective, and for the ranks to meet.
        backend: "gloo" on CPU; "nccl" on GPU, one device per rank, made current before.

    Raises:
        Unsupported: the backend does not exist or does not work here.
        torch.distributed.DistError: the ranks did not meet in time, or this process is in a world already (ValueError).
    """
    if backend not in _BACKENDS:
        raise Unsupported(f"Communication backend {backend!r} does not exist; choose one of {', '.join(_BACKENDS)}.")
    if backend == "nccl" and not (torch.cuda.is_available() and dist.is_nccl_available()):
        raise Unsupported("Backend 'nccl' needs CUDA devices and a torch built with NCCL; choose 'gloo'.")
    host = f"[{address}]" if ":" in address else address
    dist.init_process_group(
        _BACKENDS[backend],
        init_method=f"tcp://{host}:{port}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout_s),
    )


def close_group() -> None:
    """Leaves the world; peers that still wait for this rank fail. Does nothing outside of one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def highest(word: int) -> int:
    """The greatest of all ranks' words; all ranks get the same. One integer says what to do next: 0 go on, 1 stop …"""
    word_1 = torch.tensor([word], dtype=torch.int64)
    dist.all_reduce(word_1, dist.ReduceOp.MAX)
    return int(word_1.item())


def vote(flag: bool) -> bool:
    """Whether any rank raised the flag; all ranks get the same answer."""
    return bool(highest(int(flag)))


class Meshes:
    """The device meshes of all layouts of this world, built once so that changing the layout costs no set-up.

    A mesh is (ring, Ulysses) over the ranks that share this rank's forward. The groups are made here rather than by
    `init_device_mesh`: its groups would wait for a lost rank for the library's default, up to half an hour, whatever
    the world's timeout is; and layouts have groups in common.
    """

    def __init__(self, device_type: str, timeout_s: float) -> None:
        """Builds them, collectively.

        Args:
            device_type: "cpu" or "cuda".
            timeout_s: longest wait of one collective.

        Raises:
            RuntimeError: outside of a world.
        """
        if not dist.is_initialized():
            raise RuntimeError("meshes need a world; call init_group first")
        self.world_size = dist.get_world_size()
        rank, timeout = dist.get_rank(), timedelta(seconds=timeout_s)
        groups: dict[tuple[tuple[int, ...], ...], dist.ProcessGroup] = {}

        def group(size: int, stride: int) -> dist.ProcessGroup:
            parts = partition(self.world_size, size, stride)
            if parts not in groups:
                made = [dist.new_group(list(part), timeout=timeout) for part in parts]  # all ranks make all groups
                groups[parts] = next(own for own, part in zip(made, parts, strict=True) if rank in part)
            return groups[parts]

        self._meshes: dict[Layout, DeviceMesh] = {}
        for layout in layouts(self.world_size):
            if layout == SINGLE:
                continue
            first = rank - rank % layout.degree
            self._meshes[layout] = DeviceMesh.from_group(
                [group(layout.ring, layout.ulysses), group(layout.ulysses, 1)],
                device_type,
                torch.arange(first, first + layout.degree).view(layout.ring, layout.ulysses),
                mesh_dim_names=("ring", "ulysses"),
            )

    def __getitem__(self, layout: Layout) -> DeviceMesh:
        """The mesh of a layout of degree ≥ 2. KeyError for any other."""
        return self._meshes[layout]
