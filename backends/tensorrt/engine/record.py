"""`engine.json`: what an engine is made of, and where it runs. Engines are code: only recorded ones are opened."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from qdx.backends.tensorrt.flavour import FlavourName, flavour_of
from qdx.backends.tensorrt.recipe import RECIPE_NAME, BuildRecipe, parse_record
from qdx.exporter.errors import InvalidBundle, RuntimeMissing, quoted
from qdx.exporter.files import check_relative, dump_json, read_bytes, safe_child, sha256_file
from qdx.exporter.limits import JSON_LIMIT_BYTES

__all__ = [
    "ENGINE_NAME",
    "LAYERS_NAME",
    "RECORD_NAME",
    "EngineRecord",
    "check_engine",
    "check_runs_here",
    "check_sources",
    "has_engine",
    "parse_engine_record",
    "read_engine",
    "read_layers",
    "read_record",
]

ENGINE_NAME: Final = "model.engine"
RECORD_NAME: Final = "engine.json"
LAYERS_NAME: Final = "engine.layers.txt"
"""What the builder of TensorRT-RTX logged of the layers of the engine and of its memory."""
SCHEMA: Final = "qdx.tensorrt.engine/1"
_AMPERE: Final = (8, 0)
LAYERS_LIMIT_BYTES: Final = 1 << 28
"""A line of it takes about a kilobyte, and an engine has some thousand layers."""
_AGAIN: Final = "build the engine again with `qdx build --force`"
_LEAST: Final = "least for its types"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0)]
FullVersion = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){1,4}$")]


class EngineRecord(BaseModel):
    """The whole of `engine.json`; `schema_version` is `schema` in the file.

    Attributes:
        engine: The engine's file, beside the record.
        size_bytes: Its size.
        sha256: Its digest.
        flavour: TensorRT or TensorRT-RTX.
        tensorrt: The flavour's version that built it, all numbers of it.
        compute_capability: Of the device that it was built on: major and minor; None for TensorRT-RTX, which needs none.
        device: The name of that device; likewise.
        compute_capabilities: Of devices that TensorRT-RTX compiled it for; empty for the least that holds the model's
            types, and those after it.
        layers_sha256: Digest of what the builder of TensorRT-RTX logged of its layers.
        sources: Digests of the files that it was built from: the model, its weights, the recipe.
        recipe: How it was built.
        timing_cache_sha256: Digest of the timing cache that the build began with; None without one.
        build_s: How long the build took, in seconds; 0 in files of TensorRT-RTX, which are the same in every build.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=False
    )

    schema_version: Literal["qdx.tensorrt.engine/1"] = Field(alias="schema", default=SCHEMA)
    engine: str = ENGINE_NAME
    size_bytes: Size
    sha256: Sha256
    flavour: FlavourName = "tensorrt"
    tensorrt: FullVersion
    compute_capability: tuple[Size, Size] | None = None
    device: str | None = None
    compute_capabilities: tuple[str, ...] = ()
    layers_sha256: Sha256 | None = None
    sources: dict[str, Sha256]
    recipe: BuildRecipe
    timing_cache_sha256: Sha256 | None = None
    build_s: Annotated[float, Field(ge=0)] = 0.0

    @field_validator("engine")
    @classmethod
    def _check_name(cls, value: str) -> str:
        check_relative(value, error=InvalidBundle)
        if "/" in value:
            raise ValueError("in another folder, expected a file beside the record")
        return value

    @model_validator(mode="after")
    def _check_flavour(self) -> EngineRecord:
        if self.flavour != self.recipe.flavour:
            raise ValueError("`recipe` is for another flavour")
        of_device = (self.compute_capability, self.device)
        if flavour_of(self.flavour).builds_anywhere:
            if self.layers_sha256 is None or of_device != (None, None):
                raise ValueError("expected `layers_sha256`, and no device that it was built on")
            if self.compute_capabilities != self.recipe.compute_capabilities:
                raise ValueError("`compute_capabilities` are not those of `recipe`")
        elif None in of_device or self.layers_sha256 is not None or self.compute_capabilities:
            raise ValueError("expected the device that it was built on, and nothing of other ones")
        return self

    def facts(self) -> dict[str, Any]:
        """Returns what tables show."""
        if self.compute_capability is None:
            return {
                self.flavour: self.tensorrt,
                "compute_capability": ", ".join(self.compute_capabilities) or _LEAST,
                "size_bytes": self.size_bytes,
            }
        return {
            self.flavour: self.tensorrt,
            "compute_capability": ".".join(map(str, self.compute_capability)),
            "device": self.device,
            "size_bytes": self.size_bytes,
        }

    def to_json(self) -> bytes:
        """Returns the bytes of `engine.json`."""
        return dump_json(self.model_dump(mode="json", by_alias=True))


def parse_engine_record(data: bytes, *, source: str) -> EngineRecord:
    """Parses the bytes of an untrusted `engine.json`.

    Raises:
        InvalidBundle: With line and column.
    """
    return parse_record(EngineRecord, data, SCHEMA, source=source)


def has_engine(folder: Path) -> bool:
    """Whether an engine was built in a component's folder.

    Raises:
        InvalidBundle: The engine is there without its record, or the other way round.
    """
    present = [name for name in (ENGINE_NAME, RECORD_NAME) if os.path.lexists(folder / name)]
    if len(present) == 1:
        other = RECORD_NAME if present == [ENGINE_NAME] else ENGINE_NAME
        raise InvalidBundle(
            f"{quoted(folder / present[0])}: without {quoted(other)}, expected both or none",
            hint=_AGAIN,
        )
    return bool(present)


def check_sources(folder: Path, record: EngineRecord) -> None:
    """Compares the files beside an engine with those that it was built from.

    Raises:
        InvalidBundle: One is another one: the engine is of another model, or of another state of this one.
        StorageError: If reading fails.
    """
    for source, digest in record.sources.items():
        path = safe_child(folder, source, error=InvalidBundle)
        if sha256_file(path, error=InvalidBundle) != digest:
            raise InvalidBundle(
                f"{quoted(path)}: not what the engine beside it was built from", hint=_AGAIN
            )
    missing = sorted({record.recipe.model, RECIPE_NAME} - record.sources.keys())
    if missing:
        raise InvalidBundle(
            f"{quoted(folder / RECORD_NAME)}: `sources` lack {quoted(missing[0])}", hint=_AGAIN
        )


def check_engine(folder: Path, record: EngineRecord) -> None:
    """Compares an engine that is not opened here with its record, and what it was built from with that, too.

    Raises:
        InvalidBundle: One of the files is another one.
        StorageError: If reading fails.
    """
    check_sources(folder, record)
    path = safe_child(folder, record.engine, error=InvalidBundle)
    digest = sha256_file(path, error=InvalidBundle)
    if (path.stat().st_size, digest) != (record.size_bytes, record.sha256):
        raise InvalidBundle(f"{quoted(path)}: not the engine that is on record", hint=_AGAIN)


def read_layers(folder: Path, record: EngineRecord) -> str:
    """Reads what the builder of TensorRT-RTX logged of an engine's layers and memory.

    Raises:
        InvalidBundle: It is missing, not the recorded one, or no text.
        StorageError: If reading fails.
    """
    path = safe_child(folder, LAYERS_NAME, error=InvalidBundle)
    data = read_bytes(path, LAYERS_LIMIT_BYTES, error=InvalidBundle)
    if hashlib.sha256(data).hexdigest() != record.layers_sha256:
        raise InvalidBundle(f"{quoted(path)}: not the log that is on record", hint=_AGAIN)
    try:
        return data.decode()
    except UnicodeDecodeError as bad:
        raise InvalidBundle(f"{quoted(path)}: byte {bad.start} is not UTF-8", hint=_AGAIN) from None


def read_record(folder: Path) -> EngineRecord:
    """Reads the record in a component's folder.

    Raises:
        InvalidBundle: There is none, or it is malformed.
        StorageError: If reading fails.
    """
    path = safe_child(folder, RECORD_NAME, error=InvalidBundle)
    data = read_bytes(path, JSON_LIMIT_BYTES, error=InvalidBundle)
    return parse_engine_record(data, source=str(path))


def read_engine(folder: Path, record: EngineRecord) -> bytes:
    """Reads the engine that a record is about, whole.

    Loading an engine runs what is in it. The bytes returned are the ones whose digest was compared, so that no
    other file can take their place in between; whoever opens a bundle has compared the record with its manifest.

    Raises:
        InvalidBundle: It is missing, or not the recorded one.
        StorageError: If reading fails.
    """
    path = safe_child(folder, record.engine, error=InvalidBundle)
    data = read_bytes(path, record.size_bytes, error=InvalidBundle)
    digest = hashlib.sha256(data).hexdigest()
    if digest != record.sha256:
        raise InvalidBundle(
            f"{quoted(path)}: altered, SHA-256 {digest}, expected {record.sha256}",
            hint="build the engine again from the model beside it",
        )
    return data


def check_runs_here(record: EngineRecord, version: str, capability: tuple[int, int]) -> None:
    """Compares where an engine was built with where it is opened.

    Engines run on the very version and the compute capability that they were built with, unless the recipe
    widened either. A version-compatible engine runs on later versions of the same major one. An engine of TensorRT-RTX
    runs on the compute capabilities that it was compiled for, or, for none in particular, on Ampere and all after it.

    Args:
        record: Of the engine.
        version: TensorRT's version here, all numbers of it.
        capability: The device's compute capability here.

    Raises:
        RuntimeMissing: The engine is for another version or device; both are named.
    """
    problems = []
    hint = "build the engine again here, from the model beside it"
    flavour = flavour_of(record.flavour)
    if not _version_fits(record, version):
        problems.append(f"{flavour.title} {record.tensorrt}, here is {version}")
    if not _device_fits(record, capability):
        if flavour.builds_anywhere:  # whichever machine builds it again, it is for the same devices
            hint = (
                f"export for a target of `{flavour.name}` whose devices are such, see `qdx targets`; with "
                "CUDA_VISIBLE_DEVICES set to nothing the bundle is verified as on a machine without a device"
            )
        here = ".".join(map(str, capability))
        problems.append(f"compute capability {_wanted(record)}, here is {here}")
    if problems:
        raise RuntimeMissing(
            f"{quoted(record.engine)}: built for {' and for '.join(problems)}", hint=hint
        )


def _version_fits(record: EngineRecord, version: str) -> bool:
    if record.tensorrt == version:
        return True
    built, here = (tuple(map(int, each.split("."))) for each in (record.tensorrt, version))
    return record.recipe.version_compatible and built[0] == here[0] and built <= here


def _wanted(record: EngineRecord) -> str:
    if record.compute_capability is None:
        return " or ".join(record.compute_capabilities) or "8.0 or later"
    return f"{'.'.join(map(str, record.compute_capability))} ({quoted(record.device)})"


def _device_fits(record: EngineRecord, capability: tuple[int, int]) -> bool:
    if record.compute_capability is None:
        here = ".".join(map(str, capability))
        return here in record.compute_capabilities or (
            not record.compute_capabilities and capability >= _AMPERE
        )
    if record.recipe.hardware_compatibility == "ampere_plus":
        return capability >= _AMPERE
    return capability == record.compute_capability
