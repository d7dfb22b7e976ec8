"""The process that imports packages, and asks what they find on this machine.

Its arguments are the name of a runtime, `-` for none, and the packages, by the names under which they are installed. A
message for each goes to standard output, and what libraries print to standard error.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from typing import Any, Final

from qdx.backends.capabilities import ImportsPackages, Saturates
from qdx.backends.registry import find_backend
from qdx.doctor.imports import NO_RUNTIME
from qdx.exporter.errors import first_line
from qdx.exporter.messages import write_message
from qdx.targets import load_target

__all__ = ["main"]

_MODULES: Final = {"pillow": "PIL"}
"""What is imported of a package, where it has another name."""


def main() -> None:
    """Imports them all."""
    # An interrupt from the terminal reaches the whole group; whoever started this process ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")
    runtime, *names = sys.argv[1:]
    for name in names:
        write_message(replies, _answer(runtime, name))


def _answer(runtime: str, name: str) -> dict[str, Any]:
    try:
        facts = _import(name) if runtime == NO_RUNTIME else _import_of(runtime, name)
    except BaseException as error:  # noqa: BLE001 - a package may raise anything, or leave
        return {"fault": f"{type(error).__name__}: {first_line(error)}", "facts": {}}
    return {"fault": "", "facts": facts}


def _import(name: str) -> dict[str, Any]:
    importlib.import_module(_MODULES.get(name, name.replace("-", "_")))
    return _torch() if name == "torch" else {}


def _import_of(runtime: str, name: str) -> dict[str, Any]:
    """Imports a package of a runtime; the runtime itself tells more."""
    backend = find_backend(runtime)
    if isinstance(backend, ImportsPackages):
        backend.import_package(name)
    else:
        _import(name)
    if isinstance(backend, Saturates) and name == load_target(runtime).distributions[0]:
        return {"saturates": backend.saturates()}
    return {}


def _torch() -> dict[str, Any]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [(index, torch.cuda.get_device_properties(index)) for index in range(count)]
    devices = [
        {
            "device": f"cuda:{index}",
            "name": one.name,
            "memory_bytes": one.total_memory,
            "compute_capability": [one.major, one.minor],
        }
        for index, one in found
    ]
    return {"cuda": torch.version.cuda, "devices": devices}


if __name__ == "__main__":
    main()
