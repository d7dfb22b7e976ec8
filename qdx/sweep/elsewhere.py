"""What computes jobs without the memory of this process: requests go out and results come back, both as JSON data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qdx.sweep.results import Outcome
from qdx.sweep.workers import Words

__all__ = ["Answer", "Elsewhere", "Opener", "Parcel", "Request"]

Parcel = Mapping[str, bytes]
"""All that a process needs to make ready what computes, beside files that it has too."""
Answer = Callable[[Mapping[str, Any]], Mapping[str, Outcome]]
"""Computes the jobs that a request's `body` describes."""
Opener = Callable[[Parcel], Answer]
"""Makes ready what computes; a function of a module, which the other process imports.

It raises UsageError where the process has another model or other versions, and what it found would differ.
"""


@dataclass(frozen=True)
class Request:
    """Jobs that are computed together.

    Attributes:
        part: Its number, for messages.
        place: Requests of one place share work, and go to the same process where that is possible.
        body: What `Answer` takes: JSON data.
    """

    part: int
    place: int
    body: Mapping[str, Any]


class Elsewhere(Protocol):
    """Computes requests in other processes, each with one thread.

    Attributes:
        workers: How many processes.
    """

    workers: int

    def run(
        self,
        requests: Sequence[Request],
        take: Callable[[Request, Mapping[str, Outcome], float], None],
        *,
        words: Words,
    ) -> None:
        """Computes every request.

        Args:
            requests: In the order in which they begin.
            take: Takes the results of one, and the seconds that its process worked; those of a process that was taken for
                dead may never come, or come from two.
            words: For messages.

        Raises:
            QdxError: What was raised in one of them, or the processes are gone.
        """
