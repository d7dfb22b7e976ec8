"""The handle of a contender's process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.messages import error_of, read_message, write_message

__all__ = ["Worker", "start_worker"]

_COMMAND: Final = (sys.executable, "-m", "qdx.bench.worker")
_TAIL_BYTES: Final = 4096


class Worker:
    """A process that runs a call whenever it is asked, and otherwise waits.

    Args:
        name: Of the contender, for messages.
        process: Started, with pipes.
        words: What it writes to standard error.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], words: Path) -> None:
        self._name = name
        self._process = process
        self._words = words

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a request and returns the answer.

        Raises:
            QdxError: What went wrong there, with the contender's name.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            write_message(self._process.stdin, dict(message))
        except BrokenPipeError:
            self._ended()
        answer = read_message(self._process.stdout)
        if answer is None:
            self._ended()
        error = error_of(answer, place=f"{quoted(self._name)}: ")
        if error is not None:
            raise error
        return answer

    def _ended(self) -> NoReturn:
        """The process is gone: says how, in its own last words."""
        status = self._process.wait()
        data = self._words.read_bytes()[-_TAIL_BYTES:]
        lines = [line for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
        how = f"ended by signal {-status}" if status < 0 else f"left with {status}"
        last = f": {quoted(lines[-1])}" if lines else ""
        hint = "the system may have run out of memory" if status == -9 else None
        raise UsageError(f"{quoted(self._name)}: its process {how}{last}", hint=hint)


@contextlib.contextmanager
def start_worker(name: str) -> Iterator[Worker]:
    """Starts a contender's process, and ends it with the context, whatever happens there."""
    with tempfile.TemporaryDirectory(prefix="qdx-bench-") as folder:
        words = Path(folder) / "stderr"
        with words.open("wb") as stderr:
            process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
            )
        try:
            yield Worker(name, process, words)
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
