"""The packages `openvino` and `nncf`, imported without their telemetry.

Importing them sends a usage event over the network when the `openvino-telemetry` package is there.
qdx never talks to the network on its own account, so that package is hidden during the import;
they then fall back to a stub.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from qdx.exporter.errors import RuntimeMissing

_TELEMETRY = "openvino_telemetry"


def openvino() -> Any:
    """The package; untyped, because its Python layer is generated."""
    return imported("openvino")


@cache
def core() -> Any:
    """The one `Core` of this process, which reads and compiles all models.

    Each `Core` that compiled something has set the stack on which its thread handles signals, and on its end sets back
    the one before, as if those made later had ended already. Of two that end in another order a stack is left that is
    unmapped, and the next signal, such as Ctrl+C, kills the process.
    """
    return openvino().Core()


def nncf() -> Any:
    """The package; untyped like `openvino`.

    Raises:
        RuntimeMissing: It is not installed.
    """
    if "nncf" not in sys.modules and find_spec("nncf") is None:
        raise RuntimeMissing("quantizer `nncf` needs the package nncf", hint="pip install nncf")
    openvino()
    return imported("nncf")


def imported(package: str) -> Any:
    """Imports one of these packages, or one that imports them; raises what the import raises."""
    if package in sys.modules:
        return sys.modules[package]
    hidden = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == _TELEMETRY}
    for name in hidden:
        del sys.modules[name]
    blocked: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None blocks
    blocked[_TELEMETRY] = None
    try:
        return importlib.import_module(package)
    finally:
        del sys.modules[_TELEMETRY]
        sys.modules.update(hidden)
