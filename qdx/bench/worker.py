"""The process of one contender: opens its artifacts, then runs one call whenever it is asked to.

Requests and answers are JSON objects, one a line, on standard input and on what was standard output; what
libraries print goes to standard error. It waits for the next line without using the processor, and ends with the end
of its input, so that it cannot outlive the process that started it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from qdx.exporter.errors import QdxError, UsageError, first_line
from qdx.exporter.messages import error_message, read_message, write_message

if TYPE_CHECKING:
    from torch import Tensor

    from qdx.runtime.methods import TargetMethod

__all__ = ["main"]

_STATUS: Final = Path("/proc/self/status")


def main() -> None:
    """Answers until the input ends."""
    # An interrupt from the terminal reaches the whole group; whoever started this process ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, replies)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answers every request; an error is an answer as well."""
    session = _Session()
    while (request := read_message(requests)) is not None:
        try:
            answer = session.answer(request)
        except QdxError as error:
            answer = error_message(error)
        except Exception as error:  # noqa: BLE001 - a runtime may raise anything
            words = f"{type(error).__name__}: {first_line(error)}"
            answer = error_message(UsageError(words))
        write_message(replies, answer)


class _Session:
    """The opened artifacts and the inputs of their calls."""

    def __init__(self) -> None:
        self._methods: dict[str, TargetMethod] = {}
        self._inputs: dict[str, Tensor] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what a request asks."""
        match request["do"]:
            case "open":
                return self._open(request)
            case "run":
                return self._run(request["where"], request["call"])
            case _:
                return {"peak_bytes": peak_bytes()}

    def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        import safetensors.torch

        from qdx.backends.registry import get_backend

        backend = get_backend(request["runtime"])
        self._inputs = safetensors.torch.load_file(request["inputs"])
        before = peak_bytes()
        start = time.perf_counter()
        for where, method in request["methods"].items():
            runner = backend.open(
                Path(method["folder"]), request["options"], threads=request["threads"]
            )
            self._methods[where] = _method(where, method, runner)
        return {
            "before_bytes": before,
            "seconds": time.perf_counter() - start,
            "versions": backend.versions(),
        }

    def _run(self, where: str, call: int) -> dict[str, Any]:
        prefix = f"{where}/{call}/"
        tensors = {
            name.removeprefix(prefix): tensor
            for name, tensor in self._inputs.items()
            if name.startswith(prefix)
        }
        start, cpu_start = time.perf_counter(), time.process_time()
        self._methods[where](tensors)
        return {
            "wall_s": time.perf_counter() - start,
            "cpu_s": time.process_time() - cpu_start,
        }


def _method(where: str, described: dict[str, Any], runner: Any) -> TargetMethod:
    """A method whose artifact may come from another tool: dtypes and ranks are those that it declares.

    Raises:
        UsageError: It has an input that the bundle's method does not have.
    """
    from qdx.bundle.manifest import InputPort, OutputPort
    from qdx.runtime.adapted_runner import without_adapters
    from qdx.runtime.methods import TargetMethod

    arguments = described["inputs"]
    runner = without_adapters(runner, set(described["adapter_inputs"]))
    unknown = [spec.name for spec in runner.inputs if spec.name not in arguments]
    if unknown:
        raise UsageError(
            f"`{where}`: the artifact wants `{unknown[0]}`, expected none but {', '.join(arguments)}"
        )
    inputs = tuple(
        InputPort(argument=arguments[s.name], name=s.name, dtype=s.dtype, shape=s.shape)
        for s in runner.inputs
    )
    kept = tuple(
        OutputPort(field=s.name, name=s.name, dtype=s.dtype, shape=s.shape) for s in runner.outputs
    )
    return TargetMethod(where, inputs, kept, {}, runner)


def peak_bytes() -> int | None:
    """The most resident memory that this process has had; None where the system does not tell."""
    # Not `getrusage`: its figure includes the process that this one was started from.
    if not _STATUS.exists():
        return None
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else None


if __name__ == "__main__":
    main()
