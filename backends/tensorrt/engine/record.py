"""`engine.json`: what an engine is made of, and where it runs. Engines are code: only recorded ones are opened."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from qdx.backends.tensorrt.recipe import BuildRecipe, parse_record
from qdx.exporter.errors import InvalidBundle, RuntimeMissing, quoted
from qdx.exporter.files import check_relative, dump_json, read_bytes, safe_child, sha256_file
from qdx.exporter.limits import JSON_LIMIT_BYTES

__all__ = [
    "ENGINE_NAME",
    "LAYERS_NAME",
    "RECORD_NAME",
    "EngineRecord",
    "check_runs_here",
    "check_sources",
    "has_engine",
    "parse_engine_record",
    "read_engine",
    "read_record",
]

ENGINE_NAME: Final = "model.engine"
RECORD_NAME: Final = "engine.json"
LAYERS_NAME: Final = "engine.layers.txt"
"""What the builder of TensorRT-RTX logged of the layers of the engine and of its memory."""
SCHEMA: Final = "qdx.tensorrt.engine/1"
_AMPERE: Final = (8, 0)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0)]
FullVersion = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){1,4}$")]


class EngineRecord(BaseModel):
    """The whole of `engine.json`; `schema_version` is `schema` in the file.

    Attributes:
        engine: The engine's file, beside the record.
        size_bytes: Its size.
        sha256: Its digest.
        tensorrt: The version that built it, all numbers of it.
        compute_capability: Of the device that it was built on: major and minor.
        device: The name of that device.
        sources: Digests of the files that it was built from: the model, its weights, the recipe.
        recipe: How it was built.
        timing_cache_sha256: Digest of the timing cache that the build began with; None without one.
        build_s: How long the build took, in seconds.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=False
    )

    schema_version: Literal["qdx.tensorrt.engine/1"] = Field(alias="schema", default=SCHEMA)
    engine: str = ENGINE_NAME
    size_bytes: Size
    sha256: Sha256
    tensorrt: FullVersion
    compute_capability: tuple[Size, Size]
    device: str
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

    def facts(self) -> dict[str, Any]:
        """Returns what tables show."""
        return {
            "tensorrt": self.tensorrt,
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
            hint="build the engine again with `qdx build --force`",
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
                f"{quoted(path)}: not what the engine beside it was built from",
                hint="build the engine again with `qdx build --force`",
            )


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
    widened either. A version-compatible engine runs on later versions of the same major one.

    Args:
        record: Of the engine.
        version: TensorRT's version here, all numbers of it.
        capability: The device's compute capability here.

    Raises:
        RuntimeMissing: The engine is for another version or device; both are named.
    """
    problems = []
    if not _version_fits(record, version):
        problems.append(f"TensorRT {record.tensorrt}, here is {version}")
    if not _device_fits(record, capability):
        wanted = ".".join(map(str, record.compute_capability))
        problems.append(
            f"compute capability {wanted} ({quoted(record.device)}), "
            f"here is {'.'.join(map(str, capability))}"
        )
    if problems:
        raise RuntimeMissing(
            f"{quoted(record.engine)}: built for {' and for '.join(problems)}",
            hint="build the engine again here, from the model beside it",
        )


def _version_fits(record: EngineRecord, version: str) -> bool:
    if record.tensorrt == version:
        return True
    built, here = (tuple(map(int, each.split("."))) for each in (record.tensorrt, version))
    return record.recipe.version_compatible and built[0] == here[0] and built <= here


def _device_fits(record: EngineRecord, capability: tuple[int, int]) -> bool:
    if record.recipe.hardware_compatibility == "ampere_plus":
        return capability >= _AMPERE
    return capability == record.compute_capability
