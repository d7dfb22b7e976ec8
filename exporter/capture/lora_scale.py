"""The scale of adapters that a call carries: diffusers' models take it out of their arguments for attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qdx.exporter.capture.calls import LiveCall

__all__ = ["scale_argument", "taken_scale"]

_ARGUMENT: Final = "attention_kwargs"
"""How `cross_attention_kwargs`, `joint_attention_kwargs` and their like end."""
_SCALE: Final = "scale"


def scale_argument(arguments: Mapping[str, Any]) -> str | None:
    """The argument of a component's call that holds a scale of adapters; None without one."""
    found = (
        name
        for name, value in arguments.items()
        if name.endswith(_ARGUMENT) and isinstance(value, Mapping) and _SCALE in value
    )
    return next(found, None)


def taken_scale(call: LiveCall) -> tuple[float, LiveCall]:
    """The scale of a call, 1 where it has none, and the call without it."""
    name = scale_argument(call.arguments)
    if name is None:
        return 1.0, call
    rest = dict(call.arguments[name])
    scale = float(rest.pop(_SCALE))
    return scale, replace(call, arguments={**call.arguments, name: rest or None})
