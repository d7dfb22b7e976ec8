"""The address of a Ray cluster: how it is written, and whether something answers there that may be one.

The only sockets of qdx are opened here. They ask one question, which Ray itself would ask for minutes.
"""

from __future__ import annotations

import os
import re
import socket
import time
from typing import Final

from qdx.exporter.errors import UsageError, quoted

__all__ = ["check_address", "silence_of"]

_ADDRESS: Final = re.compile(
    r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):(?P<port>[0-9]{1,5})", re.ASCII
)
_PORTS: Final = 65535
_REACH_S: Final = 5.0
_ANSWER_S: Final = 15.0
"""A head with much to do may be slow; every server of HTTP/2 begins by itself."""
_SETTINGS: Final = 4
_EMPTY_SETTINGS: Final = bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _EMPTY_SETTINGS
"""How a client of HTTP/2 begins (RFC 9113, section 3.4): Ray's head talks gRPC, which is carried by that."""
_TLS: Final = "RAY_USE_TLS"


def check_address(text: str) -> tuple[str, int]:
    """Returns host and port of a cluster.

    Raises:
        UsageError: It is no `HOST:PORT`.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match["port"]) <= _PORTS:
        raise UsageError(
            f"--address: {quoted(text)}, expected HOST:PORT such as 10.0.0.1:6379",
            hint="`ray start --head` tells it",
        )
    return match["host"].strip("[]"), int(match["port"])


def silence_of(host: str, port: int, *, answer_s: float | None = None) -> str | None:
    """Says why nothing there can be the head of a Ray cluster; None where something may be.

    Where Ray is told to use TLS, it is only seen whether the port is open.

    Args:
        host: Name or address.
        port: Its port.
        answer_s: How long an answer may take, in seconds; 15 by default.
    """
    try:
        with socket.create_connection((host, port), timeout=_REACH_S) as connection:
            if os.environ.get(_TLS, "0").lower() in {"1", "true"}:
                return None
            connection.sendall(_PREFACE)
            answer = _received(connection, time.monotonic() + (answer_s or _ANSWER_S))
    except TimeoutError:
        return "it takes connections, or is out of reach, and says nothing"
    except OSError as refused:
        return refused.strerror or str(refused)
    if len(answer) == len(_EMPTY_SETTINGS) and answer[3] == _SETTINGS:
        return None
    return "another program answers there"


def _received(connection: socket.socket, until_s: float) -> bytes:
    """The head of the first frame, or as much of it as comes before the other side ends.

    Raises:
        TimeoutError: It takes too long.
    """
    found = b""
    while len(found) < len(_EMPTY_SETTINGS):
        connection.settimeout(max(until_s - time.monotonic(), 1e-3))
        piece = connection.recv(len(_EMPTY_SETTINGS) - len(found))
        if not piece:
            break
        found += piece
    return found
