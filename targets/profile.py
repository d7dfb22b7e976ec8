"""Reading target profiles: those that come with qdx, and files of the user's.

A profile is data in a TOML file. `extends` names a target of qdx whose keys it takes over, and `base` in its layout one
of the layouts in `layouts/`; both are names, never paths, so that one file is all that there is to read. A profile that
comes with qdx is a file beside this module, and a fault in it is a defect; one of a user's, or one that a bundle brings
along, is a stranger's data.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from qdx.exporter.errors import InternalError, InvalidInput, InvalidTarget, UsageError, quoted
from qdx.exporter.files import read_text
from qdx.exporter.limits import TARGET_KERNELS_LIMIT, TARGET_KEYS_LIMIT, TARGET_LIMIT_BYTES
from qdx.exporter.model_faults import Document, KeyPath, choices
from qdx.exporter.strict_toml import parse_toml, plain_faults, toml_positions
from qdx.targets.compute_capabilities import least_of, list_faults
from qdx.targets.file_layouts import file_layouts
from qdx.targets.model import Limits, Port, PortChange, TargetLayout, TargetProfile
from qdx.targets.near_names import near_targets
from qdx.targets.options import SAFE_OPTIONS

__all__ = [
    "Limits",
    "Port",
    "PortChange",
    "TargetLayout",
    "TargetProfile",
    "check_profile",
    "list_base_layouts",
    "list_targets",
    "load_target",
    "parse_target",
    "target_data",
    "target_sources",
]

_FOLDER: Final = Path(__file__).parent
_SCHEMA: Final = "qdx.target/1"
_BASE_SCHEMA: Final = "qdx.target-layout/1"
_ENDING: Final = ".toml"
_MERGED_DEPTH: Final = 3
"""Tables within tables that are merged key by key: those of a layout. An input or output is one value."""
_FILES: Final = ("model_file", "external_data_file", "context_file", "halves")
"""Keys of a layout that name what a runtime writes."""
_VALUE: Final = "value"
"""A key of tables that are one value with its reason, which is not that of another value."""


def list_targets() -> tuple[str, ...]:
    """Returns the names of the targets that come with qdx, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob(f"*{_ENDING}")))


def list_base_layouts() -> tuple[str, ...]:
    """Returns the names that `base` takes in the layout of a target, sorted."""
    return tuple(
        sorted(path.stem for path in _FOLDER.glob(f"layouts/*{_ENDING}") if _is_base(path))
    )


def load_target(name_or_path: str | os.PathLike[str]) -> TargetProfile:
    """Reads the profile of a target.

    Args:
        name_or_path: The name of a target such as `openvino`, or a file whose name ends in `.toml`.

    Raises:
        UsageError: There is no target of that name.
        InvalidTarget: There is no such file, or its content is not a target; with line and column.
        StorageError: Reading failed.
    """
    named = os.fspath(name_or_path)
    names = list_targets()
    if named in names:
        return _shipped(named)
    if named.endswith(_ENDING):
        text = read_text(named, TARGET_LIMIT_BYTES, error=InvalidTarget)
        return parse_target(text, source=named)
    guess = near_targets(named, names)
    raise UsageError(
        f"--target: {quoted(named)} is not a target; there are {', '.join(names)}",
        hint=f"did you mean {choices(guess)}?"
        if guess
        else "`qdx targets` describes them; a target of your own is a file whose name ends in .toml",
    )


def parse_target(text: str, *, source: str) -> TargetProfile:
    """Reads a target of the user's from TOML text; `source` names it in messages.

    Raises:
        InvalidTarget: The text is not TOML or not a target; with line and column.
    """
    data = parse_toml(text, source=source, error=InvalidTarget)
    here = _document(source, InvalidTarget, partial(toml_positions, text))
    here.check_sizes(data, items=TARGET_KERNELS_LIMIT, keys=TARGET_KEYS_LIMIT)
    faults = list(_reference_faults(data))
    if faults:
        raise here.listing(faults)
    profile = _validated(_resolved(data), here)
    both = [dtype for dtype in profile.storage_dtypes if dtype in profile.refused]
    if both:
        words = f"`refused.{both[0]}`: `storage_dtypes` has it too, expected one of the two"
        raise here.listing([(("refused", both[0]), words)])
    if profile.name in list_targets():
        words = f"`name` is {quoted(profile.name)}, which is a target of qdx"
        raise here.listing(
            [(("name",), words)], hint=f"a name of its own, such as `my-{profile.name}`"
        )
    return profile


def check_profile(
    profile: TargetProfile, source: str, *, error: type[InvalidInput] = InvalidTarget
) -> None:
    """Refuses what a stranger's profile may not say, where it was read as a part of something else; as a user's file.

    Raises:
        InvalidInput: Or the subclass given: it sets an option that no file may set, names files that its runtime does
            not write, or holds text that cannot be printed.
    """
    here = _document(source, error, None)
    data = profile.to_json()
    here.check_sizes(data, items=TARGET_KERNELS_LIMIT, keys=TARGET_KEYS_LIMIT)
    faults = plain_faults(data)
    faults = faults or list(_runtime_faults(profile))
    if faults:
        raise here.listing(faults)


def target_data(name: str) -> dict[str, Any]:
    """The data of a target of qdx upon all that it takes over, as TOML has it."""
    return _resolved(_read(name))


def target_sources(name: str) -> list[tuple[str, KeyPath]]:
    """The texts that the data of a target of qdx comes from, the first one first, and where in it each belongs."""
    text, data = _text(name), _read(name)
    sources: list[tuple[str, KeyPath]] = [(text, ())]
    if "base" in data.get("layout", {}):
        sources.append((_text(f"layouts/{data['layout']['base']}"), ("layout",)))
    return sources + (target_sources(data["extends"]) if "extends" in data else [])


def _document(source: str, error: type[InvalidInput], positions: Any) -> Document:
    return Document(TargetProfile, "the target", "a table", source, error, positions)


def _validated(data: dict[str, Any], here: Document) -> TargetProfile:
    """A stranger's data as a profile that the runtime can follow."""
    try:
        profile = TargetProfile.model_validate(data)
    except ValidationError as bad:
        raise here.malformed(bad, data) from None
    faults = list(_runtime_faults(profile))
    if faults:
        raise here.listing(faults)
    return profile


def _reference_faults(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What a user's file takes over that is not there to be taken."""
    layout = data.get("layout", {})
    asked: list[tuple[tuple[str, ...], object, tuple[str, ...]]]
    asked = [(("extends",), data.get("extends"), list_targets())]
    if isinstance(layout, dict):
        asked.append((("layout", "base"), layout.get("base"), list_base_layouts()))
    for path, name, known in asked:
        if name is not None and name not in known:
            guess = difflib.get_close_matches(str(name), known, n=1)
            meant = f"; did you mean `{guess[0]}`?" if guess else ""
            found = quoted(name) if isinstance(name, str) else "not text"
            yield path, f"`{'.'.join(path)}` is {found}, expected {choices(known)}{meant}"


def _runtime_faults(profile: TargetProfile) -> Iterator[tuple[KeyPath, str]]:
    """What a stranger's profile says that its runtime does not do, or that is not for a file to say.

    The runtime's own targets tell: a backend writes the files that they name, and needs the versions that they have.
    """
    targets = [_shipped(name) for name in list_targets()]
    runtimes = sorted({target.runtime for target in targets})
    same = [target for target in targets if target.runtime == profile.runtime]
    if not same:
        yield ("runtime",), f"`runtime` is {quoted(profile.runtime)}, expected {choices(runtimes)}"
        return
    own = next(target for target in same if target.name == profile.runtime)
    devices = sorted({target.device for target in same})
    if profile.device not in devices:
        yield ("device",), f"`device` is {quoted(profile.device)}, expected {choices(devices)}"
    for key in ("extra", "needs", "needs_extra"):
        asked, expected = getattr(profile, key), getattr(own, key)
        if asked != expected:
            yield (key,), f"`{key}` is {quoted(asked)}, expected `{expected}`"
    systems = {target.deployment_target for target in same if target.deployment_target is not None}
    if profile.deployment_target not in {None, *systems}:
        words = f"`deployment_target` is {quoted(profile.deployment_target)}"
        yield (
            ("deployment_target",),
            f"{words}, expected {choices(sorted(systems)) if systems else 'none'}",
        )
    for key in ("deployment_target", "runtime_versions"):
        if (getattr(profile, key) is None) != (getattr(own, key) is None):
            needs = "needs one" if getattr(profile, key) is None else "has none"
            yield (key,), f"`{key}`: {own.runtime} {needs}"
    if profile.compile_for:
        yield from _device_faults(profile, ahead=any(target.compile_for for target in same))
    yield from _file_faults(profile.layout, own)
    allowed = SAFE_OPTIONS.get(own.runtime, frozenset()).union(*(one.options for one in same))
    for name in profile.options:
        if name not in allowed:
            words = f"{quoted(name)} is not an option that a file may set for {own.runtime}"
            yield ("options", name), f"{words}, expected {choices(sorted(allowed))}"


def _device_faults(profile: TargetProfile, *, ahead: bool) -> Iterator[tuple[KeyPath, str]]:
    """What is wrong with the devices for which engines are compiled; `ahead` where the runtime needs none to build them."""
    if not ahead:
        yield (
            ("compile_for",),
            f"`compile_for`: {profile.runtime} builds engines for the device at hand, expected none",
        )
        return
    if fault := list_faults(profile.compile_for):
        yield ("compile_for",), f"`compile_for`: {fault}"
        return
    least, asked = least_of(profile.compile_for), profile.compute_capability
    if asked != least:
        given = "missing" if asked is None else f"{list(asked)}"
        yield (
            ("compute_capability",),
            f"`compute_capability` is {given}, expected {list(least or ())}, the least in `compile_for`",
        )


def _file_faults(layout: TargetLayout, own: TargetProfile) -> Iterator[tuple[KeyPath, str]]:
    """Names of files that the runtime does not write, in its own layout or in one of those that change names alone."""
    known = [own.layout]
    known += [one.upon(own.layout) for one in file_layouts().values() if one.runtime == own.runtime]
    if any(all(getattr(layout, key) == getattr(one, key) for key in _FILES) for one in known):
        return
    for key in _FILES:
        found, expected = getattr(layout, key), getattr(own.layout, key)
        if found != expected:
            words = f"`layout.{key}` is {quoted(found)}, {own.runtime} writes {quoted(expected)}"
            yield ("layout", key), words


def _shipped(name: str) -> TargetProfile:
    """A profile that comes with qdx."""
    try:
        profile = TargetProfile.model_validate(_resolved(_read(name)))
    except (tomllib.TOMLDecodeError, ValidationError) as bad:
        raise InternalError(f"{quoted(f'{name}.toml')}: not a target profile: {bad}") from bad
    if profile.name != name:
        raise InternalError(f"{quoted(f'{name}.toml')}: its name is {quoted(profile.name)}")
    return profile


def _resolved(data: dict[str, Any]) -> dict[str, Any]:
    """A profile's data upon what it extends, and its layout upon the layout that it names."""
    own = dict(data)
    layout = own.get("layout")
    if isinstance(layout, dict) and "base" in layout:
        mine = {key: value for key, value in layout.items() if key != "base"}
        own["layout"] = _upon(_base_layout(layout["base"]), mine)
    extended = own.pop("extends", None)
    return (
        own if extended is None else _upon(_without_offered(_resolved(_read(extended)), own), own)
    )


def _without_offered(base: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A base without its refusals of types that a target upon it stores: they hold for the base alone."""
    stored, refused = own.get("storage_dtypes"), base.get("refused")
    if not isinstance(stored, list) or not isinstance(refused, dict):
        return base
    return {
        **base,
        "refused": {dtype: why for dtype, why in refused.items() if dtype not in stored},
    }


def _base_layout(name: str) -> dict[str, Any]:
    data = _read(f"layouts/{name}")
    if data.pop("schema", None) != _BASE_SCHEMA:
        raise InternalError(f"{quoted(f'{name}.toml')}: not a layout of targets")
    return data


def _is_base(path: Path) -> bool:
    return bool(tomllib.loads(read_text(path, allow_hard_links=True)).get("schema") == _BASE_SCHEMA)


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(_text(name))


def _text(name: str) -> str:
    """A file that comes with qdx."""
    # Installers may link files of a package into place.
    return read_text(_FOLDER / f"{name}{_ENDING}", allow_hard_links=True)


def _upon(base: dict[str, Any], own: dict[str, Any], depth: int = _MERGED_DEPTH) -> dict[str, Any]:
    """Data upon a base: its own keys come first and replace the base's, its own rows come before the base's."""
    merged = dict(own)
    for key, under in base.items():
        value = own.get(key)
        if isinstance(value, list) and isinstance(under, list) and _is_rows(under):
            merged[key] = [*value, *under]
        elif (
            isinstance(value, dict)
            and isinstance(under, dict)
            and depth > 1
            and _VALUE not in under
        ):
            merged[key] = _upon(under, value, depth - 1)
        elif key not in own:
            merged[key] = under
    return merged


def _is_rows(value: list[Any]) -> bool:
    """Whether a list is one of tables, of which the first that fits decides."""
    return bool(value) and all(isinstance(row, dict) for row in value)
