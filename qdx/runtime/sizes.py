"""A pipeline opened from a bundle refuses, before it computes, what the bundle does not generate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qdx.exporter.errors import UsageError
from qdx.runtime.call_check import OTHERWISE, batch_words, check_call
from qdx.runtime.methods import WrongShape
from qdx.runtime.wrapped_call import default_arguments, wrap_call

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusers import DiffusionPipeline

    from qdx.bundle.manifest import Manifest

__all__ = ["in_the_users_words", "refuse_other_calls"]


def refuse_other_calls(pipeline: DiffusionPipeline, manifest: Manifest) -> None:
    """Makes a pipeline refuse sizes, counts and guidance that its bundle does not generate.

    Args:
        pipeline: Opened from the bundle.
        manifest: Of the bundle.
    """
    defaults = default_arguments(pipeline)

    def checked(_: Any, given: dict[str, Any], call: Callable[[], Any]) -> Any:
        check_call(manifest, given)
        try:
            return call()
        except WrongShape as error:
            raise in_the_users_words(error, manifest, {**defaults, **given}) from error

    wrap_call(pipeline, checked)


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
