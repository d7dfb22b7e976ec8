"""What an importer is: one tool's files, read into a draft of a plan. Each is a file here and a line of the registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from qdx.exporter.plan.importers.draft import Draft
from qdx.exporter.plan.importers.foreign import Foreign

__all__ = ["PlanImporter"]


class PlanImporter(ABC):
    """Reads the plans of one tool.

    Attributes:
        tool: Its name after `--from`.
        title: As people call it.
        reads: Which files it reads, in words.
    """

    tool: ClassVar[str]
    title: ClassVar[str]
    reads: ClassVar[str]

    @abstractmethod
    def recognizes(self, data: Mapping[str, Any]) -> bool:
        """Whether a file says of itself that it is this tool's; never by its name."""

    @abstractmethod
    def read(self, root: Foreign, draft: Draft) -> None:
        """Adds what the file says to a draft.

        Raises:
            InvalidInput: The file is not of the shape that the tool writes.
        """
