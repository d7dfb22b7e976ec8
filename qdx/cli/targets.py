"""`qdx targets`: what can be exported for, and what is installed here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qdx.cli.options import AsJson
from qdx.cli.output import emit, table
from qdx.exporter.errors import UsageError

if TYPE_CHECKING:
    from qdx.targets import TargetProfile

__all__ = ["command"]

_STORED: Final = "in the type in which a component's weights are stored"
_ENGINES: Final = (
    "built by `qdx build` on the machine that runs them; export and verify need no device"
)
_ENGINES_ANYWHERE: Final = (
    "built by `qdx export`, or by `qdx build`, on any machine; verify needs no device"
)


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|FILE]", help="Show one target, or check a file.")
    ] = None,
    as_toml: Annotated[
        bool, typer.Option("--toml", help="Print the target as a file to start your own from.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of such files, for editors.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the targets, or describe one with its kernels; check a target of your own, a TOML file."""
    from qdx.targets import list_targets, load_target

    if as_toml or schema:
        sys.stdout.write(_to_start_from(name, schema=schema))
        return
    if name is not None:
        from qdx.cli.kernel_words import kernels_words

        profile = load_target(name)
        data = _described(profile)
        text = f"{_as_text(data)}\n\n{kernels_words(profile.kernels)}"
        emit(data, as_json=as_json, text=text)
        return
    found = [_described(load_target(one)) for one in list_targets()]
    rows = [
        (
            one["name"],
            one["installed"] or "not installed",
            one["description"],
            " ".join(one["storage_dtypes"]),
        )
        for one in found
    ]
    emit(
        found,
        as_json=as_json,
        text=table(("target", "installed", "description", "float weights"), rows),
    )


def _to_start_from(name: str | None, *, schema: bool) -> str:
    """The text of a target of qdx, or the schema of such texts.

    Raises:
        UsageError: There is no target of that name, or none is named.
    """
    from qdx.exporter.strict_json import dump_json
    from qdx.targets.text import target_schema, target_text

    if schema:
        return dump_json(target_schema()).decode()
    if name is None:
        raise UsageError("--toml: no target is named", hint="run `qdx targets NAME --toml`")
    return target_text(name)


def _described(profile: TargetProfile) -> dict[str, Any]:
    """The profile as data, with the runtime's version here, how to install it, and whether engines are built for it."""
    from qdx.targets import installed_version

    return {
        **profile.model_dump(mode="json", by_alias=True),
        "installed": installed_version(profile.distributions),
        "install": f'pip install "qdx[{profile.extra}]"',
        # Told by the profile: asking its backend would import the runtime.
        "builds": not profile.opens_others,
        "builds_anywhere": not profile.opens_others and _builds_anywhere(profile.runtime),
    }


def _builds_anywhere(runtime: str) -> bool:
    """Whether any machine builds the engines of a runtime that builds some."""
    from qdx.backends.capabilities import Builds
    from qdx.backends.registry import find_backend

    backend = find_backend(runtime)
    return isinstance(backend, Builds) and backend.builds_anywhere


def _as_text(data: dict[str, Any]) -> str:
    capability = data["compute_capability"]
    engines = _ENGINES_ANYWHERE if data["builds_anywhere"] else _ENGINES
    rows = [
        ("target", data["name"]),
        ("description", data["description"]),
        ("installed", data["installed"] or f"no: {data['install']}"),
        *((("versions", data["runtime_versions"]),) if data["runtime_versions"] else ()),
        *((("compute capability", ".".join(map(str, capability))),) if capability else ()),
        *((("engines", engines),) if data["builds"] else ()),
        ("float weights", ", ".join(data["storage_dtypes"])),
        *((f"not {dtype}", reason) for dtype, reason in data["refused"].items()),
        (
            "computes floats",
            _STORED if data["compute_dtype"] == "storage" else data["compute_dtype"],
        ),
        *(("option", f"{key} = {value}") for key, value in data["options"].items()),
        ("model file", data["layout"]["model_file"]),
        *(("folder", f"{key} -> {value}/") for key, value in data["layout"]["folders"].items()),
    ]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label.ljust(width)}  {value}" for label, value in rows)
