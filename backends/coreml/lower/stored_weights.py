"""Weights that a converter can carry about without their bytes.

A conversion holds every constant of a program in memory, several times over while types change. Here
a large weight is an array that owns one element: shape and type are real, and its values are read when
they are written into the file, or when a pass of the converter computes with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from qdx.exporter.dtypes import number_type
from qdx.exporter.errors import InternalError, Refusal, TargetRefusal

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["StoredWeight", "as_array"]

_TYPES = {torch.bfloat16: "float32", torch.float64: "float32"}
_LARGE_ELEMENTS = 1 << 14
"""Smaller weights are read at once: vectors take part in fusions, and cost nothing."""


class StoredWeight(np.ndarray[Any, Any]):
    """A weight whose values are behind a reader.

    Its own memory is one element, seen as many: not-a-number, so that values which slip past the reader
    show. Computing with it, and the methods that converters call, read first; a change between types of
    floats waits until it is read.
    """

    name: str
    _read: Callable[[], torch.Tensor] | None

    @classmethod
    def of(
        cls, name: str, shape: tuple[int, ...], dtype: Any, read: Callable[[], torch.Tensor]
    ) -> StoredWeight:
        """A weight of a shape and numpy type.

        Args:
            name: Its qualified name, for messages.
            shape: Its shape.
            dtype: The type in which it is seen and read, with its metadata.
            read: Reads the tensor, in any type.
        """
        element = np.array(np.nan if dtype.kind == "f" else 0, dtype=dtype)
        array = np.ndarray.__new__(cls, shape, dtype, element.tobytes(), 0, (0,) * len(shape))
        array.name, array._read = name, read  # noqa: SLF001
        return array

    def __array_finalize__(self, obj: Any) -> None:
        # A view of one, such as a slice, is no weight: reading it is refused.
        self.name, self._read = getattr(obj, "name", "?"), None

    def read(self) -> NDArray[Any]:
        """Its values as an ordinary array.

        Raises:
            InternalError: It is a view of a weight.
            TargetRefusal: A magnitude does not fit float16.
        """
        if self._read is None:
            raise InternalError(f"`{self.name}`: a converter took a part of an unread weight")
        tensor = self._read()
        converted = tensor.to(getattr(torch, self.dtype.name))
        if self.dtype == np.float16 and not bool(torch.isfinite(converted).all()):
            peak = float(tensor.abs().max())
            raise TargetRefusal(
                f"`{self.name}`: magnitude {peak:g} does not fit float16",
                refusals=(
                    Refusal(
                        self.name,
                        f"magnitude {peak:g}, float16 ends at {number_type('float16').maximum}",
                    ),
                ),
                hint="keep this component in float32",
            )
        return converted.contiguous().numpy()

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        """The weight in another type, still unread where both are floats."""
        wanted = np.dtype(dtype)
        if self.dtype.kind == wanted.kind == "f" and self._read is not None:
            return StoredWeight.of(self.name, self.shape, wanted, self._read)
        return self.read().astype(dtype, *args, **kwargs)

    def seen_as(self, dtype: Any) -> StoredWeight:
        """The weight with the metadata of a numpy type of its own size, still unread."""
        assert self._read is not None
        return StoredWeight.of(self.name, self.shape, dtype, self._read)

    def flatten(self, order: Any = "C") -> NDArray[Any]:
        """The values in one dimension."""
        return self.read().flatten(order)

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        """The values in another shape."""
        return self.read().reshape(*shape, **kwargs)

    def transpose(self, *axes: Any) -> Any:
        """The values with other axes."""
        return self.read().transpose(*axes)

    def __getitem__(self, key: Any) -> Any:
        return self.read()[key]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if ufunc in {np.equal, np.not_equal} and len({_identity(value) for value in inputs}) == 1:
            # Converters compare constants with themselves, to see that a rewrite changed nothing.
            return np.broadcast_to(ufunc is np.equal, self.shape)
        return getattr(ufunc, method)(*(_read(value) for value in inputs), **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        del types
        return func(*_read(args), **{key: _read(value) for key, value in kwargs.items()})


def as_array(weight: LazyWeight, dtype: Any = None) -> NDArray[Any]:
    """A weight as converters take it: read where it is small, otherwise a `StoredWeight`.

    Args:
        weight: The graph's weight.
        dtype: The numpy type in which it is seen, for types that torch has not; its own otherwise.
    """
    own = np.dtype(_TYPES.get(weight.dtype) or str(weight.dtype).removeprefix("torch."))
    wanted = dtype or own
    if math.prod(weight.shape) >= _LARGE_ELEMENTS:
        return StoredWeight.of(weight.name, weight.shape, wanted, weight.load)
    return StoredWeight.of(weight.name, weight.shape, wanted, weight.load).read()


def _identity(value: Any) -> Any:
    """What two arrays share that read the same weight in the same type."""
    if isinstance(value, StoredWeight) and value._read is not None:  # noqa: SLF001
        return value._read, value.dtype, value.shape  # noqa: SLF001
    return id(value)


def _read(value: Any) -> Any:
    if isinstance(value, StoredWeight):
        return value.read()
    if isinstance(value, list | tuple):
        return type(value)(_read(item) for item in value)
    return value
