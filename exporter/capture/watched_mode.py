"""A fake mode that tells somebody of every operation on fake tensors outside the components.

Parameters without values look like any others to a pipeline's Python: it may read them, cast them or write into them.
Here such an operation is seen before its result, which has no values either, goes anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

__all__ = ["Operation", "Watch", "WatchedMode", "mark_origin", "origin_of"]

_ORIGIN = "qdx_origin"


class Operation:
    """One operation that is about to run on fake tensors.

    Attributes:
        name: torch's name of it, such as `aten.mul_.Tensor`.
        fakes: The fake tensors among its arguments.
        compute: Runs it; the result is fake.
    """

    def __init__(
        self, func: Any, arguments: Any, fakes: Sequence[FakeTensor], compute: Callable[[], Any]
    ) -> None:
        self.name = str(func)
        self.fakes = tuple(fakes)
        self.compute = compute
        self._func = func
        self._arguments = arguments

    @property
    def shares_memory(self) -> bool:
        """Whether it gives the same values under another object, as `detach` does."""
        return self._func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default)

    @property
    def is_cast(self) -> bool:
        """Whether it gives the same numbers in another layout, type or place."""
        return self._func is torch.ops.aten._to_copy.default  # noqa: SLF001  # its name in ATen

    @property
    def cast_to(self) -> str:
        """What another type or device a cast asks for; empty where it asks for none."""
        _, options = self._arguments
        (source,) = self.fakes[:1]
        dtype, device = options.get("dtype"), options.get("device")
        if dtype is not None and dtype != source.dtype:
            return str(dtype)
        if device is not None and torch.device(device).type != source.device.type:
            return str(device)
        return ""

    @property
    def written(self) -> tuple[FakeTensor, ...]:
        """The fake tensors that it writes into."""
        args, options = self._arguments
        found: list[FakeTensor] = []
        for number, declared in enumerate(self._func._schema.arguments):  # noqa: SLF001  # no other way
            if declared.alias_info is None or not declared.alias_info.is_write:
                continue
            given = args[number] if number < len(args) else options.get(declared.name)
            found += [one for one in pytree.tree_leaves(given) if isinstance(one, FakeTensor)]
        return tuple(found)


Watch = Callable[[Operation], Any]
"""Told of an operation; what it returns is the operation's result."""


class WatchedMode(FakeTensorMode):  # type: ignore[no-untyped-call]  # torch does not annotate it
    """A fake mode that remembers none of its results, makes no sizes of values that nobody knows, and can be watched.

    It would remember by weak references, and `Module.to` swaps no parameter that has one: pipelines that cast a component
    while they run, as Stable Diffusion XL does with its autoencoder, would fail wherever torch's cache of operators is cold.
    """

    def __init__(self) -> None:
        unknown = ShapeEnv(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
        super().__init__(allow_non_fake_inputs=True, shape_env=unknown)
        self.fake_tensor_converter.set_tensor_memo = lambda *_: None  # type: ignore[method-assign]
        self._watch: Watch | None = None

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs one operation."""
        dispatch = super().__torch_dispatch__
        if self._watch is None or not isinstance(func, torch._ops.OpOverload):  # noqa: SLF001  # its only name
            return dispatch(func, types, args, kwargs or {})
        fakes = [
            leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, FakeTensor)
        ]
        if not fakes:
            return dispatch(func, types, args, kwargs or {})
        watch = self._watch
        # What an operation is made of is no operation of the pipeline's.
        with self.unwatched():
            return watch(
                Operation(
                    func,
                    (args, kwargs or {}),
                    fakes,
                    lambda: dispatch(func, types, args, kwargs or {}),
                )
            )

    def watch(self, watch: Watch | None) -> None:
        """From now on `watch` is told of every operation; None ends it."""
        self._watch = watch

    @contextmanager
    def watched(self, watch: Watch) -> Iterator[None]:
        """While active, `watch` is told of every operation."""
        with self._watched_by(watch):
            yield

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """While active, components compute, and nobody is told."""
        with self._watched_by(None):
            yield

    @contextmanager
    def _watched_by(self, watch: Watch | None) -> Iterator[None]:
        before, self._watch = self._watch, watch
        try:
            yield
        finally:
            self._watch = before


def mark_origin(result: Any, origin: str) -> Any:
    """Notes on the fake tensors in a result where their values come from; returns the result."""
    for leaf in pytree.tree_leaves(result):
        if isinstance(leaf, FakeTensor):
            leaf.__dict__[_ORIGIN] = origin
    return result


def origin_of(tensor: torch.Tensor) -> str | None:
    """What `mark_origin` noted; None for a tensor without a note."""
    found = tensor.__dict__.get(_ORIGIN)
    return found if isinstance(found, str) else None
