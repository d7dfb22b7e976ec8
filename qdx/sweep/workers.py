"""Parts of a work computed side by side, each in a process of its own with one thread.

Parts do not depend on each other, so how many processes there are changes no bit of what they record. They are
forked: traced graphs and mapped weights are in memory once. Where a system cannot fork, or one worker is wanted, the
parts are computed here, one after the other.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Final, NoReturn, Self

from qdx.exporter.errors import InternalError, QdxError, StorageError, first_line
from qdx.exporter.messages import error_message, error_of, read_message, write_message

__all__ = ["Tell", "Words", "available_cores", "one_thread", "run_parts"]

Tell = Callable[[dict[str, Any]], None]
"""Told of what happens in a part: a JSON object."""

_FAILED: Final = 1
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
# The command line raises it again at an alarm, where it was dropped.
_UNWINDING: Final = (*_ENDING, signal.SIGALRM)


def available_cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Computes with one thread: partial sums, and so the last bits, depend on their number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Words:
    """What messages call a work and its parts.

    Attributes:
        work: Such as `calibration`.
        part: Such as `sample`; parts are counted from 1.
    """

    work: str
    part: str

    def process(self, part: int) -> str:
        """`calibration: the process of sample 3`."""
        return f"{self.work}: the process of {self.part} {part + 1}"


def run_parts(
    parts: Sequence[int],
    run: Callable[[int, Tell], None],
    *,
    words: Words,
    workers: int,
    tell: Tell,
    repeats: int = 0,
) -> None:
    """Runs every part; what it finds it leaves in files.

    Args:
        parts: Their numbers, in the order in which they begin.
        run: Computes one part, and tells how it goes.
        words: For messages.
        workers: How many at a time.
        tell: Told of everything, here in this process.
        repeats: How often a part is begun again whose process was ended from outside.

    Raises:
        QdxError: What was raised in one of them; the others are ended.
        StorageError: A process was killed, most likely because memory ran out, and once more than it is begun again.
    """
    if workers <= 1 or len(parts) <= 1 or not hasattr(os, "fork"):
        for part in parts:
            run(part, tell)
        return
    waiting = list(parts)
    with _Pool(run, words, repeats) as pool:
        while waiting or pool.children:
            while waiting and len(pool.children) < workers:
                pool.start(waiting.pop(0))
            for message in pool.messages():
                tell(message)
            waiting[:0] = pool.ended_early()


@dataclass(frozen=True)
class _Child:
    """A process at work on one part."""

    part: int
    pid: int
    messages: IO[bytes]


class _Pool:
    """The processes under way; leaving the context ends them, whatever happens there."""

    def __init__(self, run: Callable[[int, Tell], None], words: Words, repeats: int) -> None:
        self.children: dict[int, _Child] = {}
        self._run = run
        self._words = words
        self._repeats = repeats
        self._times_ended: Counter[int] = Counter()
        self._again: list[int] = []
        self._selector = selectors.DefaultSelector()
        # It closes with this process, however that ends; so its children learn of it in the midst of a call.
        self._life = os.pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in list(self.children.values()):
            os.kill(child.pid, signal.SIGKILL)
            self._reap(child)
        self._selector.close()
        for end in self._life:
            os.close(end)

    def start(self, part: int) -> None:
        """Forks a process for a part."""
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # In between, a signal would unwind this process's frames in the child, or make it forget the child.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _UNWINDING)
        try:
            pid = os.fork()
            if pid == 0:
                # Ends that stay open here would keep those who write to them from noticing that nobody reads.
                others = [child.messages.fileno() for child in self.children.values()]
                _work(
                    part,
                    self._run,
                    writing,
                    self._life[0],
                    (reading, self._life[1], *others),
                    before,
                    self._words,
                )
            os.close(writing)
            child = _Child(part, pid, os.fdopen(reading, "rb", buffering=0))
            self.children[pid] = child
            self._selector.register(child.messages, selectors.EVENT_READ, child)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def messages(self) -> Iterator[dict[str, Any]]:
        """Waits for the next messages; ends what has ended.

        Raises:
            QdxError: A process failed.
        """
        for key, _ in self._selector.select():
            child: _Child = key.data
            message = read_message(child.messages)
            if message is None:
                self._end(child)
                continue
            error = error_of(message)
            if error is not None:
                raise error
            yield message

    def ended_early(self) -> list[int]:
        """The parts whose processes were ended from outside and that are to begin again; each is told once."""
        again, self._again = self._again, []
        return again

    def _end(self, child: _Child) -> None:
        status = os.waitstatus_to_exitcode(self._reap(child))
        if not status:
            return
        process = self._words.process(child.part)
        self._times_ended[child.part] += 1
        from_outside = -status in {signal.SIGKILL, *_ENDING}
        if from_outside and self._times_ended[child.part] <= self._repeats:
            self._again.append(child.part)
            return
        if status == -signal.SIGKILL:
            raise StorageError(
                f"{process} was killed",
                hint="memory may have run out: give fewer --workers; the same command continues where it stopped",
            )
        if from_outside:
            raise StorageError(
                f"{process} was ended from outside",
                hint="the same command continues where it stopped",
            )
        how = f"ended by signal {-status}" if status < 0 else f"left with status {status}"
        raise InternalError(f"{process} {how}")

    def _reap(self, child: _Child) -> int:
        self._selector.unregister(child.messages)
        child.messages.close()
        del self.children[child.pid]
        return os.waitpid(child.pid, 0)[1]


def _work(
    part: int,
    run: Callable[[int, Tell], None],
    writing: int,
    life: int,
    others: Sequence[int],
    mask: Collection[int | signal.Signals],
    words: Words,
) -> NoReturn:
    """The life of a process: one part. Nothing of the parent's runs at its end."""
    status = _FAILED
    # What the parent left to the collector, such as a runtime's compiled models, has threads that are not here.
    gc.freeze()
    try:
        # The parent ends its children; whatever they leave is whole at any moment.
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for other in others:
            os.close(other)
        threading.Thread(target=_end_with_parent, args=(life,), daemon=True).start()
        with _own_stderr(), os.fdopen(writing, "wb", buffering=0) as messages:
            try:
                # With the parent gone nobody reads, and writing ends this process.
                run(part, lambda message: write_message(messages, message))
                status = 0
            except BrokenPipeError:
                pass
            except QdxError as error:
                write_message(messages, error_message(error))
            except MemoryError:
                failure = StorageError("memory ran out", hint="give fewer --workers")
                write_message(messages, error_message(failure))
            except BaseException as error:  # noqa: BLE001 - the last line of defence, told to the parent
                found = f"a {words.part} failed: {type(error).__name__}: {first_line(error)}"
                hint = "the same command with --debug and --workers 1 shows where"
                write_message(messages, error_message(InternalError(found, hint=hint)))
    finally:
        os._exit(status)


def _end_with_parent(life: int) -> NoReturn:
    """Waits until the parent is gone, and ends this process."""
    os.read(life, 1)
    os._exit(_FAILED)


@contextmanager
def _own_stderr() -> Iterator[None]:
    """Another stream to the same place: a thread of the parent may have held the lock of the one that was copied."""
    with os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace") as stream:
        sys.stderr = stream
        yield
