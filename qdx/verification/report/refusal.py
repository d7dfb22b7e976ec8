"""What keeps a bundle from being verified stands in `junit.xml` too, so that no suite is merely missing."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from qdx.exporter.errors import QdxError
from qdx.verification.report.folder import write_refusal

__all__ = ["tells_refusals"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def tells_refusals(verify: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same function, which leaves its refusal in the report folder; it is raised as before.

    Args:
        verify: Takes the bundle first, and the folder as `report`.
    """

    @functools.wraps(verify)
    def told(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return verify(*args, **kwargs)
        except QdxError as error:
            bundle = Path(str(args[0] if args else kwargs.get("bundle", ""))).resolve()
            report = kwargs.get("report")
            folder = None if report is None else Path(str(report)).resolve()
            if folder is not None and not folder.is_relative_to(bundle):
                # A folder that takes no file, or is somebody else's, cannot tell: the error itself does.
                with contextlib.suppress(QdxError):
                    write_refusal(folder, bundle, error)
            raise

    return told
