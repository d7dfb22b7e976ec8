"""The `onnxruntime` package, imported without its telemetry.

From 1.32 on, importing it on Linux starts a client that reports usage over the network and keeps
a session file in the temporary folder, unless a variable says no before the import.
"""

from __future__ import annotations

import os
from typing import Any


def onnxruntime() -> Any:
    """The package; untyped, because it ships no types."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as package

    package.disable_telemetry_events()
    return package
