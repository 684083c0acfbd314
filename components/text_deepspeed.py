"""Text encoders under DeepSpeed: their layers shared among GPUs, or their weights kept in host memory.

*AutoTP* cuts every layer's matrices among the ranks of the world, one replica of the model over all of them; it is the
ready-made way for UMT5, which transformers has no plan for. *ZeRO-Inference* (stage 3 with parameter offload) leaves
the weights in host memory and brings each layer's to the GPU when it computes.

Not run on a GPU yet; on CPU both give what the plain encoder gives.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from components.device import Placement
from components.errors import Unsupported

Arrange = Callable[[Any, Placement], Any]
"""Takes a model whose weights are in host memory; gives one that is called the same way and computes on the device."""


def split(model: Any, placement: Placement) -> Any:
    """The model's layers shared among all ranks of the world, which make the same calls. See `Arrange`.

    Raises:
        Unsupported: DeepSpeed is not installed.
    """
    library = _library()
    engine = library.init_inference(
        model,
        tensor_parallel={"tp_size": dist.get_world_size()},
        dtype=placement.dtype,
        replace_with_kernel_inject=False,
    )
    return engine.module.to(placement.device)


def offload(model: Any, placement: Placement) -> Any:
    """The model's weights in host memory. See `Arrange`.

    Raises:
        Unsupported: DeepSpeed is not installed.
    """
    library = _library()
    if not dist.is_initialized():  # DeepSpeed wants a world, here of this process alone
        backend = "gloo" if placement.device.type == "cpu" else "nccl"
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    options = {
        "train_micro_batch_size_per_gpu": 1,  # it asks for one, though nothing is trained
        "bf16": {"enabled": placement.dtype == torch.bfloat16},
        "zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}},
    }
    engine, *_ = library.initialize(model=model, config=options, dist_init_required=False)
    for buffer in engine.module.buffers():
        buffer.data = buffer.data.to(placement.device)
    return engine.module.eval()


def _library() -> Any:
    os.environ.setdefault("LOCAL_RANK", "0")  # it reads it; every process sees one device
    try:
        library = importlib.import_module("deepspeed")
        operators = importlib.import_module("deepspeed.ops")
    except ModuleNotFoundError as error:
        raise Unsupported(
            "Sharing or offloading text encoders needs the package deepspeed; install skyreels-serve[deepspeed], or "
            "leave the pool's parallel out."
        ) from error
    # Without it sums go through gloo, and nothing is compiled when the first world forms.
    operators.__compatible_ops__["deepspeed_shm_comm"] = False
    return library
