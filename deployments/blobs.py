"""A value as its durable file: safetensors, written from the tensors' own memory and mapped when read.

Layout of the file (https://github.com/huggingface/safetensors, "Format"): the header's length as 8 little-endian bytes,
a JSON header naming dtype, shape and byte range of each tensor, padded with spaces to 8 bytes, then the bytes of the
tensors without gaps. The library reads it; writing is done here because the library builds the whole file in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.utils.dlpack
from numpy.typing import NDArray
from safetensors import safe_open

from cluster.errors import StageError
from cluster.records import Handle, TensorSpec
from components.values import Value

_ALIGN_NBYTES = 8
_DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# Stand-ins of the same width for dtypes that NumPy lacks.
_STAND_INS: Mapping[torch.dtype, torch.dtype] = {
    torch.bfloat16: torch.int16,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e5m2: torch.uint8,
}


def compact(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors on the CPU, contiguous, each owning exactly its own memory; the same object where it already does."""
    own: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        alone = storage.nbytes() == tensor.nbytes and (not tensor.nbytes or storage.data_ptr() not in storages)
        if alone and tensor.is_cpu and tensor.is_contiguous() and not tensor.requires_grad:
            own[name] = tensor
        else:
            own[name] = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        storages.add(storage.data_ptr())
    return own


def to_array(tensor: torch.Tensor) -> NDArray[Any]:
    """The tensor's memory as a NumPy array: bf16 as int16, fp8 as uint8. CPU and contiguous only."""
    array: NDArray[Any] = tensor.view(_STAND_INS.get(tensor.dtype, tensor.dtype)).numpy()
    return array


def from_array(array: NDArray[Any], dtype: str) -> torch.Tensor:
    """The inverse of `to_array`, over the same memory, which may be read-only: nobody may write to the tensor.

    DLPack takes read-only memory as it is; `torch.from_numpy` would warn.

    Raises:
        TypeError: the array does not hold what `dtype` (torch's name) says.
    """
    wanted = getattr(torch, dtype, None)
    tensor = torch.utils.dlpack.from_dlpack(array)
    if not isinstance(wanted, torch.dtype) or _STAND_INS.get(wanted, wanted) != tensor.dtype:
        raise TypeError(f"an array of {array.dtype} holds no {dtype}")
    return tensor.view(wanted)


def pieces(tensors: Mapping[str, torch.Tensor]) -> list[bytes | memoryview]:
    """The file of compact tensors in pieces, without copying them.

    Raises:
        ValueError: safetensors knows no such dtype.
    """
    # Wide dtypes first, so that every tensor is aligned in the file.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, dict[str, object]] = {}
    data: list[bytes | memoryview] = []
    end = 0
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in _DTYPES:
            raise ValueError(f"{name} is {tensor.dtype}, which a stored value cannot be.")
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        if tensor.nbytes:
            data.append(to_array(tensor).reshape(-1).data.cast("B"))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGN_NBYTES)
    return [len(text).to_bytes(8, "little") + text, *data]


def mapped(path: Path) -> dict[str, torch.Tensor]:
    """Tensors that lie in the file's private mapping: pages are read when touched, the file is never written."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def specs(value: Value) -> tuple[TensorSpec, ...]:
    """Name, dtype and shape of each tensor, in the value's order."""
    return tuple(
        TensorSpec(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in value.tensors().items()
    )


def size(value: Value) -> int:
    """Bytes of all tensors."""
    return sum(tensor.nbytes for tensor in value.tensors().values())


def check(value: Value, handle: Handle) -> None:
    """StageError unless the value is exactly what the handle says."""
    if value.kind != handle.kind or specs(value) != handle.tensors:
        raise StageError(
            f"The stored value is a {value.kind} of {_told(specs(value))}; "
            f"its handle says {handle.kind} of {_told(handle.tensors)}.",
            retryable=False,
        )


def _told(found: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in found) or "nothing"
