"""A pipeline opened from a bundle refuses, before it computes, what the bundle does not generate."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from qdx.exporter.capture.media import call_parameters
from qdx.exporter.errors import UsageError
from qdx.runtime.call_check import OTHERWISE, batch_words, check_call, check_size
from qdx.runtime.methods import WrongShape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusers import DiffusionPipeline

    from qdx.bundle.manifest import Manifest

__all__ = ["check_size", "in_the_users_words", "refuse_other_sizes"]


def refuse_other_sizes(pipeline: DiffusionPipeline, manifest: Manifest) -> None:
    """Makes a pipeline refuse sizes, counts and guidance that its bundle does not generate.

    The pipeline stays what it is for all who ask: its class gets a subclass of the same name.

    Args:
        pipeline: Opened from the bundle.
        manifest: Of the bundle.
    """
    kind = type(pipeline)
    original = kind.__call__
    parameters = call_parameters(pipeline)
    names = list(parameters)
    defaults = {
        name: one.default
        for name, one in parameters.items()
        if one.default is not inspect.Parameter.empty
    }

    @functools.wraps(original)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        check_call(manifest, given)
        try:
            return original(self, *args, **kwargs)
        except WrongShape as error:
            raise in_the_users_words(error, manifest, {**defaults, **given}) from error

    pipeline.__class__ = type(
        kind.__name__, (kind,), {"__call__": checked, "__module__": kind.__module__}
    )


def in_the_users_words(
    error: WrongShape, manifest: Manifest, call: Mapping[str, Any]
) -> UsageError:
    """What an artifact did not take, as what the user asked for; the error itself where that does not tell.

    Args:
        error: Of the artifact.
        manifest: Of its bundle.
        call: Arguments of the pipeline, with its own defaults where none were given.
    """
    if error.batches is not None:
        return batch_words(manifest, *error.batches, call) or error
    if not error.is_size or manifest.sizes is None or manifest.shapes != "static":
        return error
    height, width = manifest.sizes.height, manifest.sizes.width
    return UsageError(
        f"this bundle generates {width}x{height} pixels: {error.message}",
        hint=f"give height={height} and width={width}, or pictures of this size; or {OTHERWISE}",
    )
