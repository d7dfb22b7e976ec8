"""The weights of a component: of its variant, of all that it consists of, or those of a module that somebody holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qdx.exporter.capture.folder import resolve_class
from qdx.exporter.capture.live import LiveCheckpoint
from qdx.exporter.graph.ir.safetensors_file import Checkpoint, JoinedCheckpoint, open_checkpoint

if TYPE_CHECKING:
    from qdx.exporter.capture.folder import Component

__all__ = ["open_weights"]

# Where the models of several models of diffusers keep them.
_LIST: Final = "nets"


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
    if not _consists_of_members(component):
        return open_checkpoint(component.path, variant=component.variant, mapped=mapped)
    members = enumerate(component.members)
    return JoinedCheckpoint(
        {f"{_LIST}.{number}.": open_weights(member, mapped=mapped) for number, member in members}
    )


def _consists_of_members(component: Component) -> bool:
    if not component.members:
        return False
    where = f"`{component.path}`"
    cls = resolve_class(component.library, component.class_name, where=where)
    return not hasattr(cls, "from_config")
