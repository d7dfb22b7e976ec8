"""Values that are known while a graph is traced: computed at once, as Python that reads them needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from qdx.exporter.capture.known_masks import by_numbers

__all__ = ["Concrete"]

_MADE: Final = frozenset(
    {torch.arange, torch.empty, torch.eye, torch.full, torch.ones, torch.tensor, torch.zeros}
)
"""What makes tensors of numbers alone."""
_MADE_LIMIT: Final = 1 << 20
"""Elements of a tensor that is made; larger ones would be stored where an operator makes them."""


class Concrete(TorchFunctionMode):
    """While active, a function of known tensors and of nothing else is computed instead of traced.

    Where a traced function writes into a known tensor, a traced one takes its place from then on.

    Args:
        known: The tensors that are known at first; what is computed of them joins. Without any, nothing is known.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._known = {id(tensor): tensor for tensor in known}
        self._traced: dict[int, torch.Tensor] = {}
        self._stale: set[int] = set()
        self._copies: dict[int, tuple[int, torch.Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Computes or traces one function.

        Raises:
            ValueError: It takes a tensor into a part of which a traced function wrote.
        """
        options = kwargs or {}
        if not self._known:
            return func(*args, **options)
        tensors = [t for t in pytree.tree_leaves((args, options)) if isinstance(t, torch.Tensor)]
        if any(id(tensor) in self._stale for tensor in tensors):
            raise ValueError(
                "its Python writes what it computes into a part of a tensor whose values it reads"
            )
        if all(self._is_known(tensor) for tensor in tensors) and (
            tensors or _makes(func, args, options)
        ):
            return self._computed(func, args, options)
        for tensor in _written(func, args, options):
            if self._is_known(tensor):
                self._trace_from_now(tensor)
        if any(id(tensor) in self._known for tensor in tensors):
            args = by_numbers(func, args, self._is_known)
            args, options = pytree.tree_map(self._as_traced, (args, options))
        return func(*args, **options)

    def _is_known(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._known and id(tensor) not in self._traced

    def _computed(self, func: Callable[..., Any], args: Any, options: dict[str, Any]) -> Any:
        with _disable_current_modes():
            found = func(*args, **options)
        for leaf in pytree.tree_leaves(found):
            if isinstance(leaf, torch.Tensor) and not isinstance(leaf, FakeTensor):
                self._known[id(leaf)] = leaf
        return found

    def _trace_from_now(self, tensor: torch.Tensor) -> None:
        """Gives a known tensor, which is about to be written into, a traced one in its place."""
        memory = tensor.untyped_storage().data_ptr()
        for key, other in self._known.items():
            if other is not tensor and other.untyped_storage().data_ptr() == memory:
                self._stale.add(key)
        self._traced[id(tensor)] = self._frozen(tensor).clone()

    def _as_traced(self, leaf: Any) -> Any:
        """What a traced function takes for a known tensor: its values as they are now."""
        if not isinstance(leaf, torch.Tensor) or id(leaf) not in self._known:
            return leaf
        return self._traced[id(leaf)] if id(leaf) in self._traced else self._frozen(leaf)

    def _frozen(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy that nobody writes into: the graph holds it, whatever becomes of the tensor afterwards."""
        version = tensor._version  # noqa: SLF001  # its only name
        if self._copies.get(id(tensor), (None,))[0] != version:
            with _disable_current_modes():
                self._copies[id(tensor)] = version, tensor.detach().clone()
        return self._copies[id(tensor)][1]


def _makes(func: Callable[..., Any], args: Any, options: dict[str, Any]) -> bool:
    """Whether a function makes a tensor of numbers that are known, and no large one."""
    if func not in _MADE:
        return False
    leaves = pytree.tree_leaves((args, options))
    if any(isinstance(leaf, torch.SymInt | torch.SymFloat) for leaf in leaves):
        return False
    with _disable_current_modes():
        return bool(func(*args, **{**options, "device": "meta"}).numel() <= _MADE_LIMIT)


def _written(func: Callable[..., Any], args: Any, options: dict[str, Any]) -> Iterator[Any]:
    """The tensors that a function writes into."""
    name = getattr(func, "__name__", "")
    is_operator = name.startswith("__i") and name not in {"__invert__", "__int__", "__index__"}
    in_place = name.endswith("_") and not name.endswith("__")
    if (name == "__setitem__" or is_operator or in_place) and args:
        yield args[0]
    yield from pytree.tree_leaves(options.get("out"))
