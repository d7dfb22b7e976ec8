"""Layouts beside a target's own: what the loaders of one application look for, as data.

A layout is a TOML file in the folder `layouts`. One of an application knows families of pipelines, and for each the
packages that it loads: their names, and the names, types and shapes of what goes in and comes out. Others change the
names of files alone, see `qdx.targets.file_layouts`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, Strict, ValidationError

from qdx.exporter.errors import InternalError, Refusal, TargetRefusal, UsageError, quoted
from qdx.exporter.files import read_text
from qdx.exporter.form import Form
from qdx.exporter.strict_model import StrictModel
from qdx.targets.file_layouts import FileLayout, file_layouts
from qdx.targets.model import Dtype, Names, TargetProfile
from qdx.targets.profile import list_base_layouts

__all__ = [
    "ApplicationLayout",
    "Family",
    "FileLayout",
    "Package",
    "PackagePort",
    "list_layouts",
    "load_layout",
]

_FOLDER: Final = Path(__file__).parent / "layouts"

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Shape = Annotated[tuple[int | Literal["*"], ...], Strict(strict=False)]


class PackagePort(StrictModel):
    """An input or output of a package.

    Attributes:
        name: Its name in the package.
        dtype: Its element type; `storage` for that of the component's weights.
        form: How it is laid out, where that is not as it was traced.
        shape: Its sizes; `*` is any.
    """

    name: Name
    dtype: Dtype | Literal["storage"] = "float32"
    form: Form | None = None
    shape: Shape


class Package(StrictModel):
    """One package and its ports by traced name; `hidden_states.-2` counts from the end.

    Attributes:
        package: Its file name, without the ending.
        halves: Those of the two packages that the application takes in its place; empty for none.
        inputs: All that it takes.
        outputs: What it gives, in this order; other outputs of the method are left out.
    """

    package: Name
    halves: Annotated[Names, Field(max_length=2)] = ()
    inputs: Mapping[str, PackagePort]
    outputs: Mapping[str, PackagePort]


class Family(StrictModel):
    """Pipelines that an application runs with the same packages.

    Attributes:
        pipelines: Classes of diffusers.
        tokenizer: The component whose vocabulary the application reads.
        hint: How to export such a pipeline.
        refused: Components that the application does not load, each with the reason.
        packages: By `component.method`.
    """

    pipelines: Names
    tokenizer: Name
    hint: str
    refused: Mapping[str, str] = {}
    packages: Mapping[str, Package]


class ApplicationLayout(StrictModel):
    """What an application loads.

    Attributes:
        schema_: The format, `qdx.layout/1`; the key in TOML is `schema`.
        name: What `--layout` takes.
        runtime: The backend that makes the packages.
        description: The application, as a noun.
        folder: The folder of a bundle that holds what it loads.
        script: The file beside the layout that makes this folder ready for the application.
        families: By name.
    """

    schema_: Literal["qdx.layout/1"] = Field(alias="schema")
    name: Name
    runtime: str
    description: str
    folder: Name
    script: str
    families: Mapping[str, Family]

    def family(self, pipeline_class: str) -> Family:
        """The family that a pipeline belongs to.

        Raises:
            TargetRefusal: The application does not run such pipelines.
        """
        for family in self.families.values():
            if pipeline_class in family.pipelines:
                return family
        known = ", ".join(name for family in self.families.values() for name in family.pipelines)
        reason = f"{self.description} runs {known}"
        raise TargetRefusal(
            f"--layout {self.name}: {quoted(pipeline_class)} has no such layout, {reason}",
            refusals=(Refusal(pipeline_class, reason),),
            hint="export without --layout: one package for each component, in diffusers' order",
        )

    def script_text(self) -> str:
        """The script that makes the folder ready for the application."""
        return read_text(_FOLDER / self.script, allow_hard_links=True)


def list_layouts() -> tuple[str, ...]:
    """The names that `--layout` takes, sorted."""
    names = {path.stem for path in _FOLDER.glob("*.toml")}
    return tuple(sorted(names.difference(list_base_layouts())))


def load_layout(name: str, profile: TargetProfile) -> ApplicationLayout | FileLayout:
    """Reads a layout for a target.

    Raises:
        UsageError: No layout has that name, or it is for another runtime.
    """
    names = list_layouts()
    if name not in names:
        raise UsageError(
            f"--layout: {quoted(name)} is not a layout; there are {', '.join(names)}",
            hint="leave the option out for one artifact for each component, in diffusers' order",
        )
    layout = file_layouts().get(name) or _application(name)
    if layout.runtime != profile.runtime:
        raise UsageError(
            f"--layout {name}: is for targets of {quoted(layout.runtime)}, "
            f"{quoted(profile.name)} is one of {quoted(profile.runtime)}",
            hint=f"choose a target such as `{layout.runtime}`, or leave --layout out",
        )
    return layout


def _application(name: str) -> ApplicationLayout:
    try:
        text = read_text(_FOLDER / f"{name}.toml", allow_hard_links=True)
        return ApplicationLayout.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as bad:
        raise InternalError(f"{quoted(f'{name}.toml')}: not a layout: {bad}") from bad
