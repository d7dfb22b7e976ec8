"""Operations of the bundle writer, watched or done in a child that is killed."""

from __future__ import annotations

import contextlib
import os

from qdx.bundle import operations
from qdx.exporter.errors import QdxError


@contextlib.contextmanager
def observing(observer):
    before, operations._observer = operations._observer, observer
    try:
        yield
    finally:
        operations._observer = before


def in_child(body) -> int:
    """Runs a function in a forked child and returns its wait status."""
    child = os.fork()
    if child == 0:
        try:
            body()
        except QdxError:
            os._exit(3)
        except BaseException:  # noqa: BLE001
            os._exit(4)
        os._exit(0)
    return os.waitpid(child, 0)[1]
