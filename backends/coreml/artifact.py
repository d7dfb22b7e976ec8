"""What a component became: one package, or two halves of one.

Two halves lie side by side, as `NAMEChunk1.mlpackage` and `NAMEChunk2.mlpackage`. The second takes by name what the
first gives, beside inputs of the whole; read together they are one program again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from qdx.backends.coreml.mil.program import MilFunction, MilOperation, MilProgram, MilValue
from qdx.backends.coreml.mil.reader import read_package
from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.files import safe_child

__all__ = ["ENDING", "packages_of", "read_artifact"]

ENDING: Final = ".mlpackage"
_FIRST: Final = f"Chunk1{ENDING}"
_SECOND: Final = f"Chunk2{ENDING}"


def read_artifact(folder: Path) -> MilProgram:
    """The program of a component.

    Args:
        folder: Holds one package, or is one; of two halves it is the first.

    Raises:
        InvalidBundle: It cannot be read.
    """
    programs = [read_package(package) for package in packages_of(folder)]
    return programs[0] if len(programs) == 1 else _joined(*programs)


def packages_of(folder: Path) -> tuple[Path, ...]:
    """The packages that a component runs, one after the other.

    Raises:
        InvalidBundle: There is none, or there are several, or a half alone.
    """
    package = _package_in(folder)
    if not package.name.endswith(_FIRST):
        return (package,)
    second = package.name.removesuffix(_FIRST) + _SECOND
    return package, safe_child(package.parent, second, error=InvalidBundle)


def _package_in(folder: Path) -> Path:
    if folder.suffix == ENDING:
        return folder
    found = sorted(path.name for path in folder.iterdir() if path.suffix == ENDING)
    if len(found) != 1:
        names = ", ".join(map(quoted, found)) or "no package"
        raise InvalidBundle(f"{quoted(folder)}: holds {names}, expected one `NAME{ENDING}`")
    return safe_child(folder, found[0], error=InvalidBundle)


def _joined(first: MilProgram, second: MilProgram) -> MilProgram:
    """One program: the second half's steps behind the first's."""
    given = {spec.name: (spec.dtype, spec.shape) for spec in first.outputs}
    own = {spec.name: (spec.dtype, spec.shape) for spec in first.inputs}
    inputs = list(first.inputs)
    for spec in second.inputs:
        known = given.get(spec.name) or own.get(spec.name)
        if known is None:
            inputs.append(spec)
        elif known != (spec.dtype, spec.shape):
            raise InvalidBundle(
                f"{quoted(second.path.name)}: {quoted(spec.name)} is {spec.dtype}{list(spec.shape)}, "
                f"{quoted(first.path.name)} has {known[0]}{list(known[1])}"
            )
    names = {spec.name for spec in inputs}
    values = {v.name: v for v in (*first.main.inputs, *second.main.inputs) if v.name in names}
    taken = {v.name for op in first.main.operations for v in op.outputs} | set(values)
    main = replace(
        first.main,
        inputs=tuple(values[spec.name] for spec in inputs),
        operations=(*first.main.operations, *_renamed(second.main, taken, set(given))),
        outputs=second.main.outputs,
    )
    return replace(
        first,
        functions={first.default: main},
        inputs=tuple(inputs),
        outputs=second.outputs,
        metadata={**first.metadata, **second.metadata},
    )


def _renamed(function: MilFunction, taken: set[str], given: set[str]) -> list[MilOperation]:
    """The operations of the second half; constants that both have get a name of their own."""
    names = {
        value.name: f"{value.name}_of_the_second_half"
        for operation in function.operations
        for value in operation.outputs
        if value.name in taken and value.name not in given
    }
    return [_with_names(operation, names) for operation in function.operations]


def _with_names(operation: MilOperation, names: Mapping[str, str]) -> MilOperation:
    return replace(
        operation,
        inputs={
            key: tuple(names.get(one, one) if isinstance(one, str) else one for one in operands)
            for key, operands in operation.inputs.items()
        },
        outputs=tuple(
            MilValue(names.get(value.name, value.name), value.type) for value in operation.outputs
        ),
    )
