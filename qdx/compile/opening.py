"""Every artifact is opened before its bundle is finished, where a crash of the runtime cannot take the export along."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from qdx.backends.capabilities import Tries
from qdx.exporter.errors import InvalidBundle, QdxError, Refusal, TargetRefusal
from qdx.exporter.messages import error_of, read_message, write_message

if TYPE_CHECKING:
    from qdx.backends.contract import Backend
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.targets.profile import TargetProfile

__all__ = ["check_opens"]

_COMMAND: Final = (sys.executable, "-m", "qdx.compile.opening_worker")
_TAIL_BYTES: Final = 4096
_HINT: Final = "leave the component out: name the others with --components, it then runs in PyTorch; or choose another target"


def check_opens(
    graph: Graph, artifact: Path, backend: Backend, profile: TargetProfile
) -> tuple[str, ...]:
    """Opens what a graph became.

    Args:
        graph: With the artifact's face.
        artifact: What the backend opens.
        backend: The target's.
        profile: The target.

    Returns:
        What could not be checked, a line each.

    Raises:
        TargetRefusal: The runtime cannot open it, refuses operations of it, or ended while it tried.
    """
    try:
        if isinstance(backend, Tries):
            unchecked = _try_open(profile, artifact, usual_shapes(graph))
            return tuple(f"`{graph.where}`: {line}" for line in unchecked)
        return _opened(graph, artifact, backend, profile)
    except TargetRefusal as error:
        words = f"`{graph.where}`: {error.message}"
        raise TargetRefusal(words, refusals=error.refusals, hint=error.hint) from error
    except InvalidBundle as error:
        words = f"{profile.runtime} cannot open what was written: {_in_one_line(error.message)}"
        raise _refusal(graph, words) from error
    except _Ended as error:
        words = f"{profile.runtime} {error} while it opened what was written"
        raise _refusal(graph, words) from error


def _opened(
    graph: Graph, artifact: Path, backend: Backend, profile: TargetProfile
) -> tuple[str, ...]:
    """Opens an artifact as it is opened to run it."""
    try:
        backend.open(artifact, dict(profile.options))
    except TargetRefusal as error:  # of what takes the runtime's place on this machine
        return (f"`{graph.where}`: was not opened here: {error.message}",)
    return ()


def _try_open(
    profile: TargetProfile, artifact: Path, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """Opens an artifact in the process that is kept for it, and again in a fresh one where that ends.

    A process that has opened others may end of what they left behind: only a fresh one tells of this artifact.
    """
    opener = _process()
    is_fresh = opener.answered == 0
    try:
        return opener.try_open(profile.runtime, artifact, profile.options, shapes)
    except _Ended:
        if is_fresh:
            raise
        return _process().try_open(profile.runtime, artifact, profile.options, shapes)


def usual_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Sizes of a usual call by input, of those inputs whose open sizes are known."""
    found = {}
    for spec in graph.inputs:
        sizes = [
            size if isinstance(size, int) else getattr(graph.sizes.get(size), "usual", None)
            for size in spec.shape
        ]
        if None not in sizes:
            found[spec.name] = tuple(cast("list[int]", sizes))
    return found


def _in_one_line(words: str) -> str:
    return "; ".join(filter(None, map(str.strip, words.splitlines())))


def _refusal(graph: Graph, reason: str) -> TargetRefusal:
    return TargetRefusal(
        f"`{graph.where}`: {reason}", refusals=(Refusal(graph.where, reason),), hint=_HINT
    )


class _Ended(Exception):  # noqa: N818  # a process did
    """The process that opens artifacts is gone; its words say how."""


class _Opener:
    """A process that opens one artifact after the other.

    It ends with its input, so that it cannot outlive this process.

    Attributes:
        answered: How many it has opened or refused.
    """

    def __init__(self) -> None:
        self.answered = 0
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        # In a folder that stays: in one that is removed meanwhile, libraries load no more of their parts.
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            cwd=sys.prefix,
        )

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def try_open(
        self,
        runtime: str,
        artifact: Path,
        options: Mapping[str, str],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> tuple[str, ...]:
        """Opens an artifact there; returns what could not be checked, a line each.

        Raises:
            QdxError: As it was raised there.
            _Ended: The process is gone.
        """
        requests, answers = self._pipes()
        message: dict[str, Any] = {
            "runtime": runtime,
            "artifact": str(artifact.resolve()),
            "options": dict(options),
            "shapes": {name: list(sizes) for name, sizes in shapes.items()},
        }
        try:
            write_message(requests, message)
            answer = read_message(answers)
        except BrokenPipeError:
            answer = None
        except BaseException:  # an interruption, say, after which nobody waits for the answer
            self._process.kill()
            raise
        if answer is None:
            raise _Ended(self._last_words())
        self.answered += 1
        error: QdxError | None = error_of(answer)
        if error is not None:
            raise error
        return tuple(answer["unchecked"])

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

    def _last_words(self) -> str:
        status = self._process.wait()
        how = f"ended by signal {-status}" if status < 0 else f"left with {status}"
        self._words.seek(0)
        lines = self._words.read()[-_TAIL_BYTES:].decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how} ({last})" if last else how


_kept: list[_Opener] = []
"""The process of this one's exports: starting it takes longer than opening a small artifact."""


def _process() -> _Opener:
    if not _kept or not _kept[-1].is_alive:
        while _kept:
            _kept.pop().close()
        _kept.append(_Opener())
    return _kept[-1]


def _close() -> None:
    while _kept:
        _kept.pop().close()


def _forget() -> None:
    while _kept:
        _kept.pop().forget()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
