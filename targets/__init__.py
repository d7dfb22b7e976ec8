"""Hardware profiles as data, and their loader. Imports no runtime and no torch."""

from __future__ import annotations

from qdx.targets.installed import installed_version
from qdx.targets.profile import (
    Port,
    TargetLayout,
    TargetProfile,
    check_profile,
    list_targets,
    load_target,
)

__all__ = [
    "Port",
    "TargetLayout",
    "TargetProfile",
    "check_profile",
    "installed_version",
    "list_targets",
    "load_target",
]
