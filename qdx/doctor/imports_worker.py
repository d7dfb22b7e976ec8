"""The process that imports packages, and asks each what it finds on this machine.

Their names are its arguments; a message for each goes to standard output, and what libraries print to standard error.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

from qdx.exporter.errors import first_line
from qdx.exporter.messages import write_message

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
    for name in sys.argv[1:]:
        write_message(replies, _answer(name))


def _answer(name: str) -> dict[str, Any]:
    try:
        _IMPORTS.get(name, _import)(name)
        facts = _FACTS[name]() if name in _FACTS else {}
    except BaseException as error:  # noqa: BLE001 - a package may raise anything, or leave
        return {"fault": f"{type(error).__name__}: {first_line(error)}", "facts": {}}
    return {"fault": "", "facts": facts}


def _import(name: str) -> None:
    importlib.import_module(_MODULES.get(name, name.replace("-", "_")))


def _import_onnxruntime(_: str) -> None:
    from qdx.backends.onnx.package import onnxruntime

    onnxruntime()


def _import_beside_openvino(name: str) -> None:
    from qdx.backends.openvino.package import imported

    imported(name.replace("-", "_"))


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


def _onnxruntime() -> dict[str, Any]:
    from qdx.backends.onnx.package import onnxruntime
    from qdx.backends.onnxruntime.saturation import saturates

    return {"saturates": saturates(), "providers": list(onnxruntime().get_available_providers())}


def _openvino() -> dict[str, Any]:
    from qdx.backends.openvino.package import core
    from qdx.backends.openvino.saturation import saturates

    return {"saturates": saturates(), "devices": list(core().available_devices)}


_IMPORTS: Final[Mapping[str, Callable[[str], None]]] = {
    # These report their use over the network, unless they are imported so.
    "nncf": _import_beside_openvino,
    "onnxruntime": _import_onnxruntime,
    "openvino": _import_beside_openvino,
    "openvino-tokenizers": _import_beside_openvino,
}
_FACTS: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}


if __name__ == "__main__":
    main()
