"""The weights of a component: those of the variant that was chosen for it, or those of a module that somebody holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdx.exporter.capture.live import LiveCheckpoint
from qdx.exporter.graph.ir.safetensors_file import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from qdx.exporter.capture.folder import Component

__all__ = ["open_weights"]


def open_weights(component: Component, *, mapped: bool = False) -> Checkpoint:
    """Opens the weights of a component.

    Args:
        component: The component.
        mapped: Whether tensors are pages of the files and no copies.

    Raises:
        InvalidModel: As `open_checkpoint` and `LiveCheckpoint`.
        StorageError: If reading fails.
    """
    if component.held is not None:
        return LiveCheckpoint(component.held, component.name)
    return open_checkpoint(component.path, variant=component.variant, mapped=mapped)
