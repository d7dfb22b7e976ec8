"""Processes of our own that answer messages, where a crash of somebody else's library cannot take this process along.

Such a process runs a module whose `main` calls `serve`. Requests and answers are messages, one a line, on its standard
input and output; what libraries print goes to its standard error, whose last line is told where it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Final, cast

from qdx.exporter.errors import QdxError
from qdx.exporter.messages import error_message, error_of, read_message, write_message

__all__ = ["Child", "ChildEnded", "KeptChild", "serve"]

_TAIL_BYTES: Final = 4096


class ChildEnded(Exception):  # noqa: N818  # a process did
    """A process is gone; its words say how.

    Attributes:
        signal: Number of the signal that ended it; None where it left by itself.
    """

    def __init__(self, words: str, number: int | None = None) -> None:
        super().__init__(words)
        self.signal = number


class Child:
    """A process that answers one message after the other.

    It ends with its input, so that it cannot outlive this process.

    Args:
        command: That starts it.

    Attributes:
        answered: How many messages it has answered, with errors too.
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        self.answered = 0
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        # In a folder that stays: in one that is removed meanwhile, libraries load no more of their parts.
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            cwd=sys.prefix,
        )

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Sends a message and waits for the answer; whatever interrupts that ends the process.

        Raises:
            QdxError: As it was raised there.
            ChildEnded: The process is gone.
        """
        requests, answers = self._pipes()
        try:
            write_message(requests, message)
            answer = read_message(answers)
        except BrokenPipeError:
            answer = None
        except BaseException:  # an interruption, say, after which nobody waits for the answer
            self._process.kill()
            self._process.wait()  # so that it writes nothing more, wherever the caller cleans up
            raise
        if answer is None:
            raise self._ended()
        self.answered += 1
        error: QdxError | None = error_of(answer)
        if error is not None:
            raise error
        return answer

    def forget(self) -> None:
        """Leaves it to the process that this one is a fork of."""
        self._process.returncode = 0

    def close(self) -> None:
        """Lets it end."""
        for stream in self._pipes():
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self._process.wait()
        self._words.close()

    def _pipes(self) -> tuple[BinaryIO, BinaryIO]:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        return cast("BinaryIO", requests), cast("BinaryIO", answers)

    def _ended(self) -> ChildEnded:
        status = self._process.wait()
        how = f"ended by signal {-status}" if status < 0 else f"left with {status}"
        self._words.seek(0)
        lines = self._words.read()[-_TAIL_BYTES:].decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ChildEnded(f"{how} ({last})" if last else how, -status if status < 0 else None)


class KeptChild:
    """One process kept for several messages: starting it may take longer than answering.

    Where it ends, the message goes to a fresh one: a process that has answered others may end of what they left behind,
    and only a fresh one tells of this message.

    Args:
        module: That it runs.
    """

    def __init__(self, module: str) -> None:
        self.command: tuple[str, ...] = (sys.executable, "-m", module)
        self._kept: list[Child] = []
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    @property
    def process(self) -> Child | None:
        """The process; None where there is none."""
        return self._kept[-1] if self._kept else None

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Sends a message and waits for the answer.

        Raises:
            QdxError: As it was raised there.
            ChildEnded: A fresh process ended of the message.
        """
        child = self._living()
        is_fresh = child.answered == 0
        try:
            return child.ask(message)
        except ChildEnded:
            if is_fresh:
                raise
            return self._living().ask(message)

    def close(self) -> None:
        """Lets the process end, which gives its memory back."""
        while self._kept:
            self._kept.pop().close()

    def _living(self) -> Child:
        if not self._kept or not self._kept[-1].is_alive:
            self.close()
            self._kept.append(Child(self.command))
        return self._kept[-1]

    def _forget(self) -> None:
        while self._kept:
            self._kept.pop().forget()


def serve(answer: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
    """Answers messages on standard input until it ends; where it ends amid the work, so does the process.

    Args:
        answer: Makes the answer to a message; an error of qdx that it raises is the answer, others are its own affair.
    """
    # An interrupt from the terminal reaches the whole group; whoever started this process ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    working = threading.Event()

    def listen() -> None:
        while (request := read_message(sys.stdin.buffer)) is not None:
            working.set()
            requests.put(request)
        if working.is_set():  # nobody waits for the answer any more
            os._exit(1)
        requests.put(None)

    threading.Thread(target=listen, daemon=True).start()
    while (request := requests.get()) is not None:
        try:
            found = answer(request)
        except QdxError as error:
            found = error_message(error)
        working.clear()
        with contextlib.suppress(BrokenPipeError):
            write_message(replies, found)
