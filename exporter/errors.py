"""All errors that qdx raises on purpose.

    QdxError                    70
    ├── UsageError               2   the command line or an argument is wrong
    ├── InvalidInput             2   a file given to qdx is wrong
    │   ├── InvalidPlan
    │   ├── InvalidTarget
    │   ├── InvalidModel
    │   └── InvalidBundle
    ├── TargetRefusal            3   the target cannot do what the plan asks
    ├── RuntimeMissing           4   a runtime is not installed
    ├── StorageError             5   reading or writing failed
    ├── InsufficientMemory       5   memory will not do for the work
    └── InternalError           70   a defect of qdx

The number is the exit status of the command line. A failed gate is not an error: it is a report
whose exit status is 1. A message says what and where, what was found and what was expected; the
hint says what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from qdx.exporter.limits import QUOTE_LIMIT

__all__ = [
    "InsufficientMemory",
    "InternalError",
    "InvalidBundle",
    "InvalidInput",
    "InvalidModel",
    "InvalidPlan",
    "InvalidTarget",
    "QdxError",
    "QdxWarning",
    "Refusal",
    "RuntimeMissing",
    "StorageError",
    "TargetRefusal",
    "UsageError",
    "first_line",
    "quoted",
    "visible",
]


def quoted(text: object) -> str:
    r"""Returns foreign text in backticks, safe to print on a terminal.

    Control characters, bidirectional marks, lone surrogates and whatever else is not printable
    become escapes. Long text loses its middle, because paths tell most at their ends.

    >>> quoted("a\x1b[2Jb")
    '`a\\x1b[2Jb`'
    """
    full = str(text)
    half = QUOTE_LIMIT // 2
    shown = full if len(full) <= QUOTE_LIMIT else f"{full[:half]}…{full[-half:]}"
    return f"`{visible(shown.replace('`', chr(39)))}`"


def visible(text: object) -> str:
    r"""Returns foreign text as one line that a terminal only shows: the rest become escapes.

    >>> visible("a\x1b[2J\nb")
    'a\\x1b[2J\\nb'
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )


def first_line(error: BaseException, *, otherwise: str = "no message") -> str:
    """Returns the first line of what another library's exception says, or other words where it says nothing."""
    return (str(error).strip() or otherwise).splitlines()[0]


_NAMED_PLACES: Final = 3
"""How many places with the same reason a message names; `refusals` has all of them."""


def _by_reason(refusals: Sequence[Refusal]) -> list[str]:
    """A line for each reason, with the first places where it holds."""
    sites: dict[str, list[str]] = {}
    for refusal in refusals:
        sites.setdefault(refusal.reason, []).append(quoted(refusal.site))
    lines = []
    for reason, places in sites.items():
        more = len(places) - _NAMED_PLACES
        words = ", ".join(places[:_NAMED_PLACES]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"{words}: {reason}")
    return lines


@dataclass(frozen=True)
class Refusal:
    """One thing that a target cannot do.

    Attributes:
        site: Where, for example `unet.mid_block.attentions.0.proj_in`.
        reason: What was asked and what the target offers.
        hint: What to change, if something can be changed.
    """

    site: str
    reason: str
    hint: str | None = None

    def __str__(self) -> str:
        return f"{quoted(self.site)}: {self.reason}"


class QdxError(Exception):
    """Base of all errors of qdx.

    Args:
        message: What and where, what was found, what was expected.
        hint: The next step, or None.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n\nhint: {self.hint}"


class QdxWarning(UserWarning):
    """What qdx does unasked and users may not expect, with the way out."""


class UsageError(QdxError):
    """The command line or an argument is wrong."""

    exit_code: ClassVar[int] = 2


class InvalidInput(QdxError):  # noqa: N818
    """A file given to qdx is wrong."""

    exit_code: ClassVar[int] = 2


class InvalidPlan(InvalidInput):
    """The plan is malformed, contradicts itself or matches nothing."""


class InvalidTarget(InvalidInput):
    """The file of a target is malformed, or says what its runtime does not do."""


class InvalidModel(InvalidInput):
    """The pipeline folder, a configuration or a weight file is malformed."""


class InvalidBundle(InvalidInput):
    """The bundle is incomplete, altered or malformed."""


class TargetRefusal(QdxError):  # noqa: N818
    """The target cannot do what the plan asks.

    Args:
        message: A summary of one line.
        refusals: Each thing refused, in graph order; the text names the first places of each reason.
        hint: The next step, or None.
    """

    exit_code: ClassVar[int] = 3

    def __init__(
        self, message: str, *, refusals: tuple[Refusal, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.refusals = refusals

    def __str__(self) -> str:
        lines = [self.message, *(f"  {line}" for line in _by_reason(self.refusals))]
        text = "\n".join(lines)
        return text if self.hint is None else f"{text}\n\nhint: {self.hint}"


class RuntimeMissing(QdxError):  # noqa: N818
    """A runtime that the target needs is not installed."""

    exit_code: ClassVar[int] = 4


class StorageError(QdxError):
    """Reading or writing failed: no space, no permission, a faulty disk."""

    exit_code: ClassVar[int] = 5


class InsufficientMemory(QdxError):  # noqa: N818
    """Memory will not do for the work, which has not begun."""

    exit_code: ClassVar[int] = 5


class InternalError(QdxError):
    """A defect of qdx."""

    exit_code: ClassVar[int] = 70
