"""The package `coremltools`, imported and used without what it says to the terminal.

On Linux its import warns of eight proxies of the Core ML framework, which exists on Apple's systems
alone, and of versions of other packages; its conversion draws progress bars. None of that is news.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

__all__ = ["quiet", "versions"]


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the package's logger and the warnings of what it calls; errors are raised as ever."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def versions() -> dict[str, str]:
    """Versions of the packages that lower."""
    return {package: version(package) for package in ("torch", "coremltools")}


with quiet():
    import coremltools.converters.mil.frontend.torch.load
    import coremltools.optimize  # noqa: F401
