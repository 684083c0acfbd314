import numpy as np
import pytest
import torch
from safetensors.torch import load

from deployments import blobs

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def numbers(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def test_the_library_reads_what_is_written():
    tensors = {name(dtype): numbers(dtype, 3, index) for index, dtype in enumerate(DTYPES)}
    read = load(b"".join(blobs.pieces(tensors)))
    assert read.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert read[key].dtype == tensor.dtype and read[key].shape == tensor.shape
        assert torch.equal(read[key].view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize("widths", [(1, 3, 5), (7, 1, 1), (2, 4, 6)])
def test_every_tensor_is_aligned(widths):
    first, second, third = widths
    tensors = {
        "a": numbers(torch.uint8, first),
        "a longer name": numbers(torch.float32, second),
        "b": numbers(torch.bfloat16, third),
    }
    head, *data = blobs.pieces(tensors)
    assert len(head) % 8 == 0
    ends = np.cumsum([len(piece) for piece in data])
    assert [len(piece) for piece in data] == [4 * second, 2 * third, first]
    assert ends[0] % 4 == 0 and ends[1] % 2 == 0


def test_pieces_are_the_tensors_own_memory():
    tensor = torch.zeros(4)
    _, data = blobs.pieces({"x": tensor})
    tensor[1] = 1.0
    assert bytes(data) == b"\0\0\0\0\0\0\x80\x3f" + b"\0" * 8


def test_nothing_and_empty_tensors():
    assert load(b"".join(blobs.pieces({}))) == {}
    read = load(b"".join(blobs.pieces({"x": torch.zeros(1, 0, 4, dtype=torch.bfloat16)})))
    assert read["x"].shape == (1, 0, 4) and read["x"].dtype == torch.bfloat16


def test_dtypes_that_cannot_be_stored():
    with pytest.raises(ValueError, match="complex64"):
        blobs.pieces({"x": torch.zeros(1, dtype=torch.complex64)})


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("shape", [(2, 3), (1, 0, 4), ()])
def test_arrays_and_back_over_one_memory(dtype, shape):
    """Read-only, as received; a warning would be an error here."""
    tensor = numbers(dtype, *shape)
    array = blobs.to_array(tensor)
    array.flags.writeable = False
    back = blobs.from_array(array, name(dtype))
    assert back.dtype == dtype and back.shape == shape
    assert back.data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("dtype", ["float32", "bfloat", "nn", "int32"])
def test_an_array_of_another_dtype(dtype):
    with pytest.raises(TypeError, match=dtype):
        blobs.from_array(np.zeros(2, np.int16), dtype)
