"""Operators that name a device, called for another one than they were traced on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from qdx.exporter.devices import is_cpu

__all__ = ["Call", "caller_for", "placed_arguments"]

Call = Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]
"""Calls an operator with arguments."""


def caller_for(device: torch.device) -> Call:
    """What calls the operators of a graph on a device. Graphs are traced on the processor."""
    if is_cpu(device):
        return _as_traced

    def call(target: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        args, kwargs = placed_arguments(target, args, kwargs, device)
        return target(*args, **kwargs)

    return call


def placed_arguments(
    target: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    device: torch.device,
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The arguments with a device in the place of that which an operator names, or takes by default.

    Where an operator makes no tensor, such as the assertion that a tensor is as it was in the trace, an absent device
    stays absent.
    """
    place = _device_argument(target)
    if place is None:
        return args, kwargs
    name, position, makes_tensor = place
    if position is not None and position < len(args):
        if args[position] is None and not makes_tensor:
            return args, kwargs
        return (*args[:position], device, *args[position + 1 :]), kwargs
    if makes_tensor or kwargs.get(name) is not None:
        return args, {**kwargs, name: device}
    return args, kwargs


def _as_traced(target: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return target(*args, **kwargs)


@functools.cache
def _device_argument(target: Callable[..., Any]) -> tuple[str, int | None, bool] | None:
    """Of an operator: the name of its argument for a device, where it stands, and whether it is a factory.

    A factory takes no tensor, and makes one on the processor where no device is given.
    """
    if not isinstance(target, torch._ops.OpOverload):  # noqa: SLF001  # torch has no public name for it
        return None
    takes_tensor = False
    found: tuple[str, int | None] | None = None
    for position, argument in enumerate(target._schema.arguments):  # noqa: SLF001
        kind = str(argument.type)
        takes_tensor |= "Tensor" in kind
        if "Device" in kind:
            found = argument.name, None if argument.kwarg_only else position
    return None if found is None else (*found, not takes_tensor)
