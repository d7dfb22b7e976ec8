"""Arrays of NumPy as tensors of PyTorch, which lends them memory on the device, and back."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["DTYPES", "array_of", "tensor_of", "torch_dtype"]

DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "FLOAT": "float32",
        "HALF": "float16",
        "BF16": "bfloat16",
        "INT8": "int8",
        "INT32": "int32",
        "INT64": "int64",
        "BOOL": "bool",
        "UINT8": "uint8",
    }
)
"""torch's names of the types of inputs and outputs, by TensorRT's names."""
_BFLOAT16: Final = "bfloat16"


def torch_dtype(name: str) -> torch.dtype:
    """Returns torch's type of one of `DTYPES`."""
    import torch

    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def tensor_of(array: NDArray[Any]) -> torch.Tensor:
    """Returns a tensor of the same numbers and shape, in host memory; arrays that are whole are not copied."""
    import torch

    whole = np.asarray(array, order="C")
    if not whole.flags.writeable:  # torch warns of memory that it must not write
        whole = whole.copy()
    if str(whole.dtype) == _BFLOAT16:  # torch does not know NumPy's type of it
        return torch.from_numpy(whole.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(whole)


def array_of(tensor: torch.Tensor) -> NDArray[Any]:
    """Returns an array of the same numbers and shape, which the caller owns."""
    import torch

    host = tensor.detach().to("cpu", copy=True)
    if host.dtype == torch.bfloat16:
        return host.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    found: NDArray[Any] = host.numpy()
    return found
