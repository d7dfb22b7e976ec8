"""Layouts that change the names of a component's files and nothing else: what one reader of finished engines opens.

Such a layout is a TOML file in the folder `layouts`, as those of applications are. Folders, inputs and outputs stay the
target's own.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from qdx.exporter.errors import InternalError, quoted
from qdx.exporter.files import read_text
from qdx.exporter.strict_model import StrictModel
from qdx.targets.model import FileName, TargetLayout

__all__ = ["FileLayout", "FileNames", "file_layouts"]

_FOLDER: Final = Path(__file__).parent / "layouts"
_SCHEMA: Final = "qdx.file-layout/1"


class FileNames(StrictModel):
    """Names of files in a component's folder; see `TargetLayout`."""

    model_file: FileName
    external_data_file: FileName
    context_file: FileName


class FileLayout(StrictModel):
    """Names of a component's files, for one reader.

    Attributes:
        schema_: The format, `qdx.file-layout/1`; the key in TOML is `schema`.
        name: What `--layout` takes.
        runtime: The backend that writes the files.
        description: The reader, as a noun.
        files: The names.
    """

    schema_: Literal["qdx.file-layout/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    runtime: str
    description: str
    files: FileNames

    def upon(self, layout: TargetLayout) -> TargetLayout:
        """The layout of a target with these names."""
        return layout.model_copy(update=self.files.model_dump())


@cache
def file_layouts() -> dict[str, FileLayout]:
    """Those that come with qdx, by name."""
    found = {}
    for path in sorted(_FOLDER.glob("*.toml")):
        # Installers may link files of a package into place.
        data = tomllib.loads(read_text(path, allow_hard_links=True))
        if data.get("schema") != _SCHEMA:
            continue
        try:
            found[path.stem] = FileLayout.model_validate(data)
        except ValidationError as bad:
            raise InternalError(f"{quoted(path.name)}: not a layout: {bad}") from bad
    return found
