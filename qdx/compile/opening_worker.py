"""The process that opens artifacts: requests and answers are messages, one a line, on standard input and output.

What libraries print goes to standard error. It ends with the end of its input.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from qdx.backends.capabilities import Tries
from qdx.backends.registry import find_backend
from qdx.exporter.errors import InternalError, InvalidBundle, QdxError, first_line
from qdx.exporter.messages import error_message, read_message, write_message

__all__ = ["main"]


def main() -> None:
    """Answers until the input ends."""
    # An interrupt from the terminal reaches the whole group; whoever started this process ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while (request := read_message(sys.stdin.buffer)) is not None:
        write_message(replies, _answer(request))


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        backend = find_backend(request["runtime"])
        if not isinstance(backend, Tries):
            raise InternalError(f"`{request['runtime']}` tries nothing")
        shapes = {name: tuple(sizes) for name, sizes in request["shapes"].items()}
        unchecked = backend.try_open(Path(request["artifact"]), request["options"], shapes)
    except QdxError as error:
        return error_message(error)
    except Exception as error:  # noqa: BLE001 - a runtime may raise anything
        return error_message(InvalidBundle(f"{type(error).__name__}: {first_line(error)}"))
    return {"opened": True, "unchecked": list(unchecked)}


if __name__ == "__main__":
    main()
