"""A process of a Ray cluster: requests come in and results go out, as JSON in bytes."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qdx.exporter.errors import InternalError, InvalidInput, QdxError, first_line, quoted
from qdx.exporter.messages import error_message
from qdx.exporter.strict_json import dump_json, parse_json
from qdx.sweep.results import packed

if TYPE_CHECKING:
    from qdx.sweep.elsewhere import Opener, Parcel

__all__ = ["RayWorker"]


class RayWorker:
    """A process of the cluster.

    Args:
        opener: Makes ready what computes.
        parcel: What it is made from.
    """

    def __init__(self, opener: Opener, parcel: Parcel) -> None:
        self._opener = opener
        self._parcel = parcel
        self._answer: Any = None

    def open(self, probe: bytes) -> bytes:
        """Makes ready, and computes the probe; what was raised comes as a message."""
        import torch

        torch.set_num_threads(1)
        node = platform.node()

        def opened() -> dict[str, Any]:
            self._answer = self._opener(self._parcel)
            found = self._answer(_parsed(probe))
            return {"node": node, "results": packed(found)}

        return _told(opened, node)

    def compute(self, request: bytes) -> bytes:
        """Computes a request."""

        def computed() -> dict[str, Any]:
            began = time.monotonic()
            found = self._answer(_parsed(request))
            return {"results": packed(found), "seconds": time.monotonic() - began}

        return _told(computed, platform.node())


def _parsed(request: bytes) -> dict[str, Any]:
    return parse_json(request.decode("ascii"), source="request", error=InvalidInput)


def _told(work: Callable[[], dict[str, Any]], node: str) -> bytes:
    """What some work returns or raises, as a message."""
    try:
        message = work()
    except QdxError as error:
        message = error_message(error)
        message["message"] = f"{quoted(node)}: {message['message']}"
    except Exception as error:  # noqa: BLE001 - the last line of defence, told to the one that asked
        message = error_message(
            InternalError(f"{quoted(node)}: {type(error).__name__}: {first_line(error)}")
        )
    return dump_json(message, indent=None)
