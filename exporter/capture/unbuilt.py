"""What stands for a part of a pipeline that cannot be built, so that a call that never uses it can be exported."""

from __future__ import annotations

from typing import NoReturn

from qdx.exporter.errors import InvalidModel

__all__ = ["Unbuilt"]


class Unbuilt:
    """A part without function; whoever uses it is told why it could not be built.

    Args:
        error: Why not.
    """

    def __init__(self, error: InvalidModel) -> None:
        self.why = error

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # what Python and diffusers' housekeeping ask of every object
            raise AttributeError(name)
        raise self.why

    def __call__(self, *_args: object, **_options: object) -> NoReturn:
        """Raises, as every use does."""
        raise self.why
