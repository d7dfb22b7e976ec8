"""qdx: any diffusers pipeline, one precision plan and a target become verified artifacts.

    qdx.export(model, target="openvino", plan="float16", output=folder)
    qdx.calibrate(model, plan="w8a8", output=file)
    qdx.build(bundle)  # engines, on the machine with the GPU
    qdx.verify(bundle, model=model)
    qdx.open(bundle)  # a diffusers pipeline that runs on the target

What these return, and every error that they raise on purpose, has its name here too. Importing this package imports
none of the heavy ones; the first use of a name does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from qdx._version import __version__ as __version__

if TYPE_CHECKING:
    from qdx.calibration.record import calibrate as calibrate
    from qdx.compile.export import ExportResult as ExportResult
    from qdx.compile.export import export as export
    from qdx.engines.build import BuildResult as BuildResult
    from qdx.engines.build import build as build
    from qdx.exporter.calibrate.ranges import Ranges as Ranges
    from qdx.exporter.errors import InsufficientMemory as InsufficientMemory
    from qdx.exporter.errors import InternalError as InternalError
    from qdx.exporter.errors import InvalidBundle as InvalidBundle
    from qdx.exporter.errors import InvalidInput as InvalidInput
    from qdx.exporter.errors import InvalidModel as InvalidModel
    from qdx.exporter.errors import InvalidPlan as InvalidPlan
    from qdx.exporter.errors import InvalidTarget as InvalidTarget
    from qdx.exporter.errors import QdxError as QdxError
    from qdx.exporter.errors import QdxWarning as QdxWarning
    from qdx.exporter.errors import Refusal as Refusal
    from qdx.exporter.errors import RuntimeMissing as RuntimeMissing
    from qdx.exporter.errors import StorageError as StorageError
    from qdx.exporter.errors import TargetRefusal as TargetRefusal
    from qdx.exporter.errors import UsageError as UsageError
    from qdx.runtime.pipeline import open as open  # noqa: A004 - the public name
    from qdx.verification.judge.gates import Gate as Gate
    from qdx.verification.report.model import Report as Report
    from qdx.verification.verify import verify as verify

__all__ = [
    "BuildResult",
    "ExportResult",
    "Gate",
    "InsufficientMemory",
    "InternalError",
    "InvalidBundle",
    "InvalidInput",
    "InvalidModel",
    "InvalidPlan",
    "InvalidTarget",
    "QdxError",
    "QdxWarning",
    "Ranges",
    "Refusal",
    "Report",
    "RuntimeMissing",
    "StorageError",
    "TargetRefusal",
    "UsageError",
    "__version__",
    "build",
    "calibrate",
    "export",
    "open",
    "verify",
]

_PLACES: Final = {
    "BuildResult": "qdx.engines.build",
    "ExportResult": "qdx.compile.export",
    "Gate": "qdx.verification.judge.gates",
    "Ranges": "qdx.exporter.calibrate.ranges",
    "Report": "qdx.verification.report.model",
    "build": "qdx.engines.build",
    "calibrate": "qdx.calibration.record",
    "export": "qdx.compile.export",
    "open": "qdx.runtime.pipeline",
    "verify": "qdx.verification.verify",
}
"""Where a name comes from, if not from the errors."""


if not TYPE_CHECKING:  # a type checker would take every misspelt name for one that this finds

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(_PLACES.get(name, "qdx.exporter.errors"))
        return getattr(module, name)


def __dir__() -> list[str]:
    """What completion and `help` show: the public names, and none that this file imports."""
    return sorted({*__all__, "__all__", "__doc__", "__file__", "__name__", "__path__"})
