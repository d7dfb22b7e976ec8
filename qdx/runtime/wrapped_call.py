"""Calls of an opened pipeline that pass through a function of qdx's first."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qdx.exporter.capture.media import call_parameters

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["default_arguments", "wrap_call"]


def wrap_call(
    pipeline: DiffusionPipeline, around: Callable[[Any, dict[str, Any], Callable[[], Any]], Any]
) -> None:
    """Makes a function stand around every call of a pipeline.

    The pipeline stays what it is for all who ask: its class gets a subclass of the same name.

    Args:
        pipeline: Opened from a bundle.
        around: Takes the pipeline, the arguments that a call gives, by name, and the call itself; it answers for it.
    """
    kind = type(pipeline)
    original = kind.__call__
    names = list(call_parameters(pipeline))

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return around(self, given, lambda: original(self, *args, **kwargs))

    pipeline.__class__ = type(
        kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__}
    )


def default_arguments(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """The arguments of a pipeline's call that have a value where none is given, each with that."""
    return {
        name: one.default
        for name, one in call_parameters(pipeline).items()
        if one.default is not inspect.Parameter.empty
    }
