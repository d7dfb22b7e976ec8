"""Progress on standard error: bars on a terminal, lines elsewhere, nothing with `--quiet`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from qdx.cli import verbosity
from qdx.cli.colour import NO_CURSOR
from qdx.cli.progress_lines import Lines
from qdx.cli.ticker import DISPLAY, Ticker
from qdx.cli.verbosity import Verbosity
from qdx.exporter.progress import SILENT, Progress

__all__ = ["progress_bars"]

_LOOK_SECONDS = 1.0


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Shows tasks on standard error while the context lasts."""
    chosen = verbosity.current()
    verbose = chosen is Verbosity.VERBOSE
    if chosen is Verbosity.QUIET:
        yield SILENT
    elif sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in NO_CURSOR:
        with _bars(verbose=verbose) as bars:
            yield bars
    else:
        lines = Lines(verbose=verbose)
        with Ticker(lines.tick, _LOOK_SECONDS):
            yield lines


@contextmanager
def _bars(*, verbose: bool) -> Iterator[Progress]:
    from qdx.cli.progress_bars import REFRESH_SECONDS, Bars

    shown = Bars(verbose=verbose)
    with DISPLAY:
        shown.bars.start()
    process = os.getpid()
    try:
        with Ticker(shown.tick, REFRESH_SECONDS):
            yield shown
    finally:
        if os.getpid() == process:  # a forked child that unwinds leaves the terminal to its parent
            with DISPLAY:
                shown.bars.stop()
