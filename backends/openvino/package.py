"""The `openvino` package, imported without its telemetry.

Importing it sends a usage event over the network when the `openvino-telemetry` package is there.
qdx never talks to the network on its own account, so that package is hidden during the import;
OpenVINO then falls back to its stub.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_TELEMETRY = "openvino_telemetry"


def openvino() -> Any:
    """The package; untyped, because its Python layer is generated."""
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    hidden = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == _TELEMETRY}
    for name in hidden:
        del sys.modules[name]
    blocked: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None blocks
    blocked[_TELEMETRY] = None
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_TELEMETRY]
        sys.modules.update(hidden)
