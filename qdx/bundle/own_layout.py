"""Bundles in an application's layout: they are made to be loaded there, and nothing here runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdx.exporter.errors import UsageError, quoted

if TYPE_CHECKING:
    from pathlib import Path

    from qdx.bundle.manifest import Manifest

__all__ = ["check_own_layout"]


def check_own_layout(manifest: Manifest, path: Path) -> None:
    """Refuses to run what is not in its target's own layout.

    Raises:
        UsageError: It is in the layout of an application.
    """
    if manifest.layout is not None:
        raise UsageError(
            f"{quoted(path)}: is in the layout {quoted(manifest.layout)} of an application, which runs it",
            hint="export again without --layout, with the same plan and --call: that bundle holds the same "
            "graphs, and `qdx verify`, `qdx run` and `qdx bench` take it",
        )
