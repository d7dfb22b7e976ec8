"""The process that opens artifacts, see `qdx.exporter.child`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qdx.backends.capabilities import Tries
from qdx.backends.registry import find_backend
from qdx.exporter.child import serve
from qdx.exporter.errors import InternalError, InvalidBundle, QdxError, first_line

__all__ = ["main"]


def main() -> None:
    """Answers until the input ends."""
    serve(_answer)


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        backend = find_backend(request["runtime"])
        if not isinstance(backend, Tries):
            raise InternalError(f"`{request['runtime']}` tries nothing")
        shapes = {name: tuple(sizes) for name, sizes in request["shapes"].items()}
        unchecked = backend.try_open(Path(request["artifact"]), request["options"], shapes)
    except QdxError:
        raise
    except Exception as error:  # a runtime may raise anything
        raise InvalidBundle(f"{type(error).__name__}: {first_line(error)}") from error
    return {"opened": True, "unchecked": list(unchecked)}


if __name__ == "__main__":
    main()
