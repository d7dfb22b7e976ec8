"""Sizes that a bundle does not generate are refused before it generates, in pixels."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from qdx.exporter.capture.media import call_parameters
from qdx.exporter.errors import UsageError
from qdx.runtime.methods import WrongShape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusers import DiffusionPipeline

    from qdx.bundle.manifest import Manifest

__all__ = ["check_size", "refuse_other_sizes"]

_OTHERWISE = "export for this size, or with --shapes dynamic where the target takes open sizes"


def refuse_other_sizes(pipeline: DiffusionPipeline, manifest: Manifest) -> None:
    """Makes a pipeline refuse, before it computes, sizes that its bundle does not generate.

    The pipeline stays what it is for all who ask: its class gets a subclass of the same name.

    Args:
        pipeline: Opened from the bundle.
        manifest: Of the bundle.
    """
    kind = type(pipeline)
    original = kind.__call__
    names = list(call_parameters(pipeline))

    @functools.wraps(original)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        check_size(manifest, given)
        try:
            return original(self, *args, **kwargs)
        except WrongShape as error:
            if not error.is_size or manifest.sizes is None or manifest.shapes != "static":
                raise
            height, width = manifest.sizes.height, manifest.sizes.width
            raise UsageError(
                f"this bundle generates {width}x{height} pixels: {error.message}",
                hint=f"give height={height} and width={width}, or pictures of this size; or {_OTHERWISE}",
            ) from error

    pipeline.__class__ = type(
        kind.__name__, (kind,), {"__call__": checked, "__module__": kind.__module__}
    )


def check_size(manifest: Manifest, call: Mapping[str, Any]) -> None:
    """Refuses height and width of a call that the bundle does not generate.

    Args:
        manifest: Of the bundle.
        call: Arguments of its pipeline.

    Raises:
        UsageError: In pixels.
    """
    sizes = manifest.sizes
    height, width = call.get("height"), call.get("width")
    if sizes is None or not isinstance(height, int | None) or not isinstance(width, int | None):
        return  # of more than one size, or of a kind that the pipeline itself refuses
    if manifest.shapes == "static":
        # Pipelines may round a size: what the export's call asked for is taken, too.
        asked_then = manifest.call.get("height"), manifest.call.get("width")
        taken = ((sizes.height, sizes.width), asked_then)
        if not any(height in (None, h) and width in (None, w) for h, w in taken):
            asked = f"{width or sizes.width}x{height or sizes.height}"
            raise UsageError(
                f"this bundle generates {sizes.width}x{sizes.height} pixels, {asked} was requested",
                hint=f"leave out height and width, or give these; or {_OTHERWISE}",
            )
    unit = sizes.unit
    if unit is not None and any(size is not None and size % unit for size in (height, width)):
        raise UsageError(
            f"this bundle generates sizes that are multiples of {unit} pixels: {unit}, {2 * unit}, {3 * unit} and so on; "
            f"{width or 'any'}x{height or 'any'} was requested",
            hint="choose such a size, or export with a --call of this size and --shapes static",
        )
