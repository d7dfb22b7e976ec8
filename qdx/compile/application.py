"""Bundles in the layout of one application: its packages by their names, in one folder with what it reads beside."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.bundle.companions import make_folder, write_file
from qdx.exporter.errors import Refusal, StorageError, TargetRefusal, UsageError
from qdx.exporter.graph.rewrites.face import Port, traced_output, with_face
from qdx.targets.layouts import ApplicationLayout, FileLayout, load_layout
from qdx.targets.profile import TargetLayout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from qdx.exporter.capture.capture import Shapes
    from qdx.exporter.capture.folder import PipelineFolder
    from qdx.exporter.form import Form
    from qdx.exporter.graph.ir.graph import Graph, TensorSpec
    from qdx.source.pipeline import TracedPipeline
    from qdx.targets.layouts import Family, Package, PackagePort
    from qdx.targets.profile import TargetProfile

__all__ = ["Packages", "Placed", "check_layout", "open_layout", "write_resources"]

_SCRIPT: Final = "compile.sh"
_VOCABULARY: Final = ("vocab.json", "merges.txt")


@dataclass(frozen=True)
class Placed:
    """A graph with the face of its package.

    Attributes:
        graph: With the package's inputs and outputs.
        forms: Form of each input that has one, by traced name.
        fields: Traced name of each output.
    """

    graph: Graph
    forms: Mapping[str, Form]
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Packages:
    """What an application loads of one family of pipelines.

    Attributes:
        layout: Of the application.
        family: The pipeline's.
        halved: Whether packages are cut in two where the application takes them so.
    """

    layout: ApplicationLayout
    family: Family
    halved: bool = False

    def check(self, source: TracedPipeline) -> None:
        """Refuses what shows before anything is lowered.

        Raises:
            TargetRefusal: The pipeline calls what the application does not load.
        """
        found = list(_uncalled(self.family, source))
        if found:
            kept = {key.split(".")[0] for key in self.family.packages}
            names = [name for name in source.skeleton.modules if name in kept]
            raise TargetRefusal(
                f"--layout {self.layout.name}: {found[0].site}: {found[0].reason}",
                refusals=tuple(found),
                hint=f"leave out what is not loaded: --components {','.join(names)}",
            )

    def place(self, graph: Graph, storage_dtype: str) -> Placed:
        """Gives a traced graph the face of its package.

        Raises:
            TargetRefusal: It has other inputs, outputs or sizes than the application passes.
        """
        package = self.family.packages[graph.where]
        inputs = {name: _port(port, storage_dtype) for name, port in package.inputs.items()}
        chosen = {traced_output(graph, name): port for name, port in package.outputs.items()}
        found = [
            Refusal(f"{graph.where}: {name}", "not an input of this pipeline's model")
            for name in inputs
            if name not in graph.placeholders
        ]
        found += [
            Refusal(f"{graph.where}: {spec.name}", "an input that the application does not pass")
            for spec in graph.inputs
            if spec.name not in inputs
        ]
        found += [
            Refusal(f"{graph.where}: {port.name}", "not an output of this pipeline's model")
            for name, port in chosen.items()
            if name is None
        ]
        self._refuse(graph.where, found)
        outputs = {
            name: _port(port, storage_dtype) for name, port in chosen.items() if name is not None
        }
        placed = with_face(graph, inputs, outputs)
        self._refuse(graph.where, list(_other_sizes(placed, package)))
        forms = {name: port.form for name, port in inputs.items() if port.form is not None}
        return Placed(placed, forms, tuple(outputs))

    def _refuse(self, where: str, found: Sequence[Refusal]) -> None:
        if found:
            raise TargetRefusal(
                f"--layout {self.layout.name}: `{where}` is not what {self.layout.description} runs: "
                f"{found[0].site}: {found[0].reason}",
                refusals=tuple(found),
                hint=self.family.hint,
            )

    def plain(self, where: str, profile: TargetProfile) -> TargetProfile:
        """The profile for a graph that has its face already."""
        model = Path(profile.layout.model_file)
        halves = self.family.packages[where].halves if self.halved else ()
        layout = TargetLayout(
            model_file=model.name, halves=tuple(f"{name}{model.suffix}" for name in halves)
        )
        return profile.model_copy(update={"layout": layout})

    def move(self, where: str, artifact: Path, staging: Path) -> str:
        """Puts a lowered package under its name, or two halves beside each other; returns the (first) path in the bundle.

        Raises:
            StorageError: The disk refused.
        """
        package = self.family.packages[where]
        names = package.halves if self.halved and package.halves else (package.package,)
        made = (
            [artifact]
            if len(names) == 1
            else [artifact.with_name(name + artifact.suffix) for name in names]
        )
        paths = [f"{self.layout.folder}/{name}{artifact.suffix}" for name in names]
        make_folder(staging / self.layout.folder)
        for source, relative in zip(made, paths, strict=True):
            try:
                source.rename(staging / relative)
            except OSError as error:
                raise StorageError(f"`{relative}`: {error.strerror}") from error
        return paths[0]


def open_layout(
    name: str | None, profile: TargetProfile, folder: PipelineFolder, *, halved: bool = False
) -> Packages | None:
    """The packages that an application loads of a pipeline, where a layout is one's; `halved` as for `Packages`.

    Raises:
        TargetRefusal: The application does not run such pipelines.
        UsageError: There is no such layout for the target, or halves are asked of what has none.
    """
    layout = None if name is None else load_layout(name, profile)
    if not isinstance(layout, ApplicationLayout):
        return None
    family = layout.family(folder.pipeline_class)
    if halved and not any(package.halves for package in family.packages.values()):
        raise UsageError(
            f"--halves: {layout.description} takes every package of {', '.join(family.pipelines)} whole",
            hint="leave the option out",
        )
    return Packages(layout, family, halved)


def check_layout(
    name: str | None, profile: TargetProfile, shapes: Shapes, *, halved: bool
) -> TargetProfile:
    """Refuses a layout that the target does not have, open sizes in packages, and halves without, before any model is read.

    Returns:
        The profile, with the names of files that a layout changes.

    Raises:
        UsageError: Likewise.
    """
    layout = None if name is None else load_layout(name, profile)
    if halved and not isinstance(layout, ApplicationLayout):
        raise UsageError(
            "--halves: is for the --layout of an application, which names the packages",
            hint="give both, or neither",
        )
    if isinstance(layout, FileLayout):
        return profile.model_copy(update={"layout": layout.upon(profile.layout)})
    if layout is not None and shapes != "static":
        raise UsageError(
            f"--layout {name}: its packages have fixed sizes, --shapes is {shapes}",
            hint="leave --shapes out, and export once for each size",
        )
    return profile


def write_resources(packages: Packages, staging: Path) -> None:
    """Writes what the application reads beside its packages, and the script that makes all of it ready.

    Args:
        packages: Moved into place.
        staging: The bundle's folder, with the tokenizers' own folders.

    Raises:
        StorageError: The disk refused.
        TargetRefusal: The tokenizer is none that the application reads.
    """
    tokenizer, folder = packages.family.tokenizer, staging / packages.layout.folder
    for name in _VOCABULARY:
        source = staging / tokenizer / name
        if not source.is_file():
            reason = f"has no `{name}`, expected a vocabulary of byte pairs as CLIP's"
            raise TargetRefusal(
                f"--layout {packages.layout.name}: `{tokenizer}` {reason}",
                refusals=(Refusal(tokenizer, reason),),
                hint="export without --layout",
            )
        try:
            shutil.copyfile(source, folder / name)
        except OSError as error:
            raise StorageError(f"`{folder / name}`: {error.strerror}") from error
    write_file(staging / _SCRIPT, packages.layout.script_text().encode())
    try:
        (staging / _SCRIPT).chmod(0o700)
    except OSError as error:
        raise StorageError(f"`{_SCRIPT}`: {error.strerror}") from error


def _uncalled(family: Family, source: TracedPipeline) -> Iterator[Refusal]:
    """Calls that the application does not make."""
    for where, record in source.chosen.items():
        if record.component in family.refused:
            yield Refusal(where, family.refused[record.component])
        elif where not in family.packages:
            yield Refusal(where, f"has no package, there are {', '.join(family.packages)}")


def _port(port: PackagePort, storage_dtype: str) -> Port:
    return Port(port.name, storage_dtype if port.dtype == "storage" else port.dtype, port.form)


def _other_sizes(graph: Graph, package: Package) -> Iterator[Refusal]:
    """Inputs and outputs whose sizes are not the application's."""
    ports = {port.name: port for port in (*package.inputs.values(), *package.outputs.values())}
    for spec in itertools.chain(graph.inputs, graph.outputs):
        if not _fits(spec, ports[spec.name]):
            expected = ", ".join(map(str, ports[spec.name].shape))
            yield Refusal(
                f"{graph.where}: {spec.name}",
                f"has shape {list(spec.shape)}, expected [{expected}]",
            )


def _fits(spec: TensorSpec, port: PackagePort) -> bool:
    return len(spec.shape) == len(port.shape) and all(
        wanted in ("*", size) for size, wanted in zip(spec.shape, port.shape, strict=True)
    )
