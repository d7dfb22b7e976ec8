"""What TensorRT says, kept: the reason of a failed build stands nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from qdx.backends.tensorrt.engine import api
from qdx.backends.tensorrt.engine.package import TensorRt
from qdx.exporter.errors import RuntimeMissing, quoted

__all__ = ["Log", "LogLine", "started"]

Started = TypeVar("Started")

_ERRORS: Final = frozenset({"ERROR", "INTERNAL_ERROR"})
_KEPT: Final = _ERRORS | {"WARNING"}
_LINES_LIMIT: Final = 10_000
_SHOWN: Final = 5


@dataclass(frozen=True)
class LogLine:
    """One message.

    Attributes:
        severity: TensorRT's name of it: `INTERNAL_ERROR`, `ERROR` or `WARNING`.
        text: The message.
    """

    severity: str
    text: str


@dataclass
class Log:
    """Messages of one build or one run, in order; those below warnings are dropped.

    Attributes:
        title: What speaks, for messages.
        lines: The messages.
        listener: Told the text of every message, of those that are dropped too.
    """

    title: str = "TensorRT"
    lines: list[LogLine] = field(default_factory=list)
    listener: Callable[[str], None] | None = None

    def logger(self, trt: TensorRt) -> api.ILogger:
        """Returns a logger for TensorRT; it must live as long as what was made with it."""

        def log(own: Any, severity: api.Member, msg: str) -> None:
            del own
            if self.listener is not None:
                self.listener(msg)
            if severity.name in _KEPT and len(self.lines) < _LINES_LIMIT:
                self.lines.append(LogLine(severity.name, msg))

        # The base class exists only once the package is imported.
        made: api.ILogger = type("CapturedLog", (trt.ILogger,), {"log": log})()
        return made

    @property
    def errors(self) -> tuple[str, ...]:
        """The errors alone."""
        return tuple(line.text for line in self.lines if line.severity in _ERRORS)

    def reason(self) -> str:
        """The last errors in one line, for a message."""
        shown = [quoted(text) for text in self.errors[-_SHOWN:]]
        return "; ".join(shown) if shown else f"{self.title} gives no reason"


def started(kind: Callable[[api.ILogger], Started], logger: api.ILogger, log: Log) -> Started:
    """Makes a builder or a runtime, which is when TensorRT first looks for the device.

    Raises:
        RuntimeMissing: It finds none, or no driver.
    """
    try:
        return kind(logger)
    except TypeError as error:  # what the bindings raise where the library gives nothing
        raise RuntimeMissing(
            f"{log.title} does not start: {log.reason()}",
            hint="it needs an NVIDIA device and a driver for its version of CUDA",
        ) from error
