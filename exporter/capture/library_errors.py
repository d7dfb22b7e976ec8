"""What another library raises, told apart: a package that is missing or unfit here, or files that do not fit."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import inspect
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Final

from qdx.exporter.errors import InvalidModel, QdxError, first_line, quoted

__all__ = ["Fault", "environment_fault", "library_errors", "raised_in"]

# Words of libraries for a package that they miss, each with the package.
_MISSED: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"requires the ([\w-]+) library",
        r"[Yy]ou need to have ([\w-]+)",
        r"pip install (?:-U |--upgrade )?[\"']?([A-Za-z][\w.-]*)",
        r"^([\w-]+) ?[<>=!~]=?.* is required for",
        r"version of (\w+) you are using is not compatible",
    )
)
# The packages whose names differ from what is imported of them.
_DISTRIBUTIONS: Final = {
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "google": "protobuf",
    "k_diffusion": "k-diffusion",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# What computes here anyway: an error inside them is an error of what they were given.
_AT_WORK: Final = frozenset(
    {"diffusers", "numpy", "qdx", "safetensors", "tokenizers", "torch", "transformers"}
)


@dataclass(frozen=True)
class Fault:
    """Why a library cannot do its work here, whatever the files.

    Attributes:
        words: What is wrong, as a clause.
        hint: What to do.
    """

    words: str
    hint: str


@contextmanager
def library_errors(where: str, failed: str, *, hint: str) -> Iterator[None]:
    """Says what went wrong where a library works with a model's files in this context.

    Args:
        where: The files, as messages name them.
        failed: What did not work, in words that the reason follows.
        hint: What to do where neither a missing nor an unfit package is the reason.

    Raises:
        InvalidModel: The library raises anything.
    """
    try:
        yield
    except (QdxError, MemoryError):
        raise
    except Exception as error:  # a library may raise anything on broken files
        fault = environment_fault(error)
        if fault is not None:
            raise InvalidModel(f"{where}: {failed}: {fault.words}", hint=fault.hint) from error
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InvalidModel(f"{where}: {failed}: {reason}", hint=hint) from error


def environment_fault(error: BaseException) -> Fault | None:
    """What of an error lies in the installed packages; None where nothing shows that it does."""
    for one in _chain(error):
        package = _missed_package(one)
        if package is not None:
            return _fault(package, one)
    return None


def raised_in(error: BaseException) -> str:
    """The module whose code raised an error; empty where no code of Python did."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return _module(frames[-1]) if frames else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that led to it, the first cause first."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return reversed(found)


def _missed_package(error: BaseException) -> str | None:
    """The package that an error is about, by the name under which it is imported or installed."""
    if isinstance(error, ImportError) and error.name is not None:
        package = error.name.split(".")[0]
        if package not in _AT_WORK:
            return package
    if isinstance(error, NameError):
        return _guarded_import(error)
    for pattern in _MISSED:
        match = pattern.search(str(error))
        if match is not None and match[1] not in _AT_WORK:
            return match[1]
    return _failing_import(error.__traceback__)


def _guarded_import(error: NameError) -> str | None:
    """The package that the raising module imports only where it is installed."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames or error.name is None:
        return None
    module = inspect.getmodule(frames[-1])
    try:
        tree = ast.parse(inspect.getsource(module)) if module is not None else ast.Module([], [])
    except (OSError, SyntaxError):  # without its source nothing can be told
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == error.name:
                    origin = alias.name if isinstance(node, ast.Import) else node.module or ""
                    return origin.split(".")[0] or None
    return None


def _failing_import(trace: TracebackType | None) -> str | None:
    """The package of other authors that failed while it was imported or while it worked."""
    for frame, _ in reversed(list(traceback.walk_tb(trace))):
        package = _module(frame).split(".")[0]
        if frame.f_code.co_name == "<module>" and package not in {*_AT_WORK, "", "__main__"}:
            return package
    return None


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _fault(package: str, error: BaseException) -> Fault:
    """That a package is missing, or does not do as it is."""
    name = _DISTRIBUTIONS.get(package, package)
    version = _version(name)
    if version is None and not _is_importable(package):
        return Fault(f"it needs the package {quoted(name)}, which is not installed",
                     f"pip install {name}")  # fmt: skip
    installed = name if version is None else f"{name} {version}"
    words = f"the installed package {quoted(installed)} does not work with it"
    return Fault(
        f"{words}: {type(error).__name__}: {first_line(error)}",
        f"pip install --upgrade {name}, or remove it where nothing needs it",
    )


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def _is_importable(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError, AttributeError):
        return False
