"""Packages imported in a process of their own, which a broken one may end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Final

from qdx.exporter.messages import read_message

__all__ = ["NO_RUNTIME", "SECONDS", "Import", "import_all"]

SECONDS: Final = 300.0
"""After which the imports are given up; all of them take half a minute from a cold disk."""
_COMMAND: Final = (sys.executable, "-m", "qdx.doctor.imports_worker")
NO_RUNTIME: Final = "-"
"""Stands for the runtime of packages that are none's."""
_TAIL_BYTES: Final = 4096


@dataclass(frozen=True)
class Import:
    """What came of importing a package.

    Attributes:
        fault: Why it failed; empty where it did not.
        facts: What the package tells of this machine.
    """

    fault: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def import_all(
    runtime: str | None,
    names: Sequence[str],
    tell: Callable[[], None],
    *,
    seconds: float = SECONDS,
) -> dict[str, Import]:
    """Imports packages, each after the one before it; where one ends the process, another goes on with the rest.

    Args:
        runtime: Whose packages they are; None where they are no runtime's.
        names: By which the packages are installed.
        tell: Called after each of them.
        seconds: How long a process may take.
    """
    found: dict[str, Import] = {}
    while len(found) < len(names):
        rest = names[len(found) :]
        for name, one in zip(rest, _imports(runtime, rest, seconds), strict=False):
            found[name] = one
            tell()
    return found


def _imports(runtime: str | None, names: Sequence[str], seconds: float) -> Iterator[Import]:
    """What a process tells of the packages; the last one may be that which ended it."""
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [*_COMMAND, runtime or NO_RUNTIME, *names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=words,
        )
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            process.kill()

        timer = threading.Timer(seconds, give_up)
        timer.start()
        try:
            assert process.stdout is not None
            for _ in names:
                answer = read_message(process.stdout)
                if answer is None:
                    status = process.wait()
                    how = f"did not end within {seconds:g} s" if is_late.is_set() else _how(status)
                    yield Import(f"the process that imports it {how}{_last_words(words)}")
                    return
                yield Import(str(answer["fault"]), answer["facts"])
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _how(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"left with status {status}"


def _last_words(words: IO[bytes]) -> str:
    """The last line that a process wrote, behind a colon; empty where it wrote none."""
    words.seek(0)
    lines = words.read()[-_TAIL_BYTES:].decode("utf-8", "replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {last}" if last else ""
