"""Hardware profiles as data, and their loader. Imports no runtime and no torch."""

from __future__ import annotations

from qdx.targets.profile import Layout, Port, TargetProfile, list_targets, load_target

__all__ = ["Layout", "Port", "TargetProfile", "list_targets", "load_target"]
