"""Every importer of plans, and how a file finds its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qdx.exporter.errors import InvalidInput, UsageError, quoted
from qdx.exporter.model_faults import choices
from qdx.exporter.plan.importers.apple import Apple
from qdx.exporter.plan.importers.bitsandbytes import BitsAndBytes
from qdx.exporter.plan.importers.comfyui import ComfyUi
from qdx.exporter.plan.importers.deepcompressor import DeepCompressor
from qdx.exporter.plan.importers.importer import PlanImporter
from qdx.exporter.plan.importers.mixdq import MixDq, MixDqInputs
from qdx.exporter.plan.importers.modelopt import ModelOpt
from qdx.exporter.plan.importers.nncf import Nncf
from qdx.exporter.plan.importers.quanto import Quanto
from qdx.exporter.plan.importers.sdnq import Sdnq
from qdx.exporter.plan.importers.torchao import TorchAo

__all__ = ["IMPORTERS", "importer_of", "tools"]

IMPORTERS: Final[list[PlanImporter]] = [
    ModelOpt(),
    Nncf(),
    Apple(),
    MixDq(),
    MixDqInputs(),
    TorchAo(),
    Quanto(),
    BitsAndBytes(),
    DeepCompressor(),
    Sdnq(),
    ComfyUi(),
]
"""In the order in which help and documentation list them."""


def tools() -> tuple[str, ...]:
    """The names that `--from` takes."""
    return tuple(one.tool for one in IMPORTERS)


def importer_of(tool: str | None, data: Mapping[str, Any], source: str) -> PlanImporter:
    """The importer that a user names, or the one whose file this says that it is.

    Raises:
        UsageError: No importer has that name.
        InvalidInput: The file does not say whose it is, or several tools write such files.
    """
    if tool is not None:
        for one in IMPORTERS:
            if one.tool == tool:
                return one
        raise UsageError(
            f"--from: {quoted(tool)} is not a tool whose plans are read",
            hint=f"there are {choices(tools())}",
        )
    found = [one for one in IMPORTERS if one.recognizes(data)]
    if len(found) == 1:
        return found[0]
    words = (
        f"could be of {choices([one.tool for one in found])}"
        if found
        else "does not say which tool wrote it"
    )
    raise InvalidInput(f"{quoted(source)}: {words}", hint=f"say it with --from: {choices(tools())}")
