"""Messages between the processes of a benchmark: JSON objects, one a line."""

from __future__ import annotations

from typing import IO, Any

from qdx.exporter.errors import InvalidInput
from qdx.exporter.strict_json import dump_json, parse_json

__all__ = ["read_message", "write_message"]


def write_message(stream: IO[bytes], message: dict[str, Any]) -> None:
    """Writes one message and flushes."""
    # Line breaks inside of texts are escaped; those that are left only lay it out.
    stream.write(dump_json(message).replace(b"\n", b"") + b"\n")
    stream.flush()


def read_message(stream: IO[bytes]) -> dict[str, Any] | None:
    """Reads the next message; None at the end of the stream.

    Raises:
        InvalidInput: It is no JSON object.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    return parse_json(line.decode("ascii"), source="message", error=InvalidInput)
