"""Components whose configuration says that float16 overflows in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qdx.exporter.capture.folder import PipelineFolder

__all__ = ["upcast_components"]

_KEY: Final = "force_upcast"
"""How diffusers' autoencoders store it. Pipelines in float16 compute such a component in float32."""


def upcast_components(folder: PipelineFolder) -> frozenset[str]:
    """Names of the components that are to be computed in float32 where the others are in float16.

    What a file does not say is not asked: files of before the key are those of autoencoders that float16 holds.
    """
    return frozenset(
        name for name, component in folder.components.items() if component.config.get(_KEY)
    )
