"""Messages between processes of qdx: JSON objects, one a line; an error is a message too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from qdx.exporter import errors
from qdx.exporter.errors import InternalError, InvalidInput, QdxError, Refusal, TargetRefusal
from qdx.exporter.strict_json import dump_json, parse_json

__all__ = ["error_message", "error_of", "read_message", "write_message"]


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


def error_message(error: QdxError) -> dict[str, Any]:
    """An error as a message."""
    found: dict[str, Any] = {
        "error": type(error).__name__,
        "message": _readable(error.message),
        "hint": _readable_or_none(error.hint),
    }
    if isinstance(error, TargetRefusal) and error.refusals:
        found["refusals"] = [
            [_readable(one.site), _readable(one.reason), _readable_or_none(one.hint)]
            for one in error.refusals
        ]
    return found


def error_of(message: Mapping[str, Any], *, place: str = "") -> QdxError | None:
    """The error that a message is; None for other messages.

    Args:
        message: As it was read.
        place: What to say before the error's own words, such as the process it comes from.
    """
    if "error" not in message:
        return None
    kind: type[QdxError] = getattr(errors, str(message["error"]), InternalError)
    assert issubclass(kind, QdxError)
    words = f"{place}{message['message']}"
    if kind is TargetRefusal:
        refusals = tuple(Refusal(*one) for one in message.get("refusals", ()))
        return TargetRefusal(words, refusals=refusals, hint=message["hint"])
    return kind(words, hint=message["hint"])


def _readable_or_none(text: str | None) -> str | None:
    return None if text is None else _readable(text)


def _readable(text: str) -> str:
    """The text with what no message may hold as escapes: NUL, and halves of surrogate pairs, as in names of files."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
