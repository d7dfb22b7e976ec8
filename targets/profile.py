"""Target profiles: what a runtime on a device can do, and how its ecosystem names things.

A profile is data in a TOML file beside this module; `extends` names another whose keys it takes over.
Nothing here imports a runtime.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator

from qdx.exporter.errors import InternalError, UsageError, quoted
from qdx.exporter.files import read_text
from qdx.exporter.plan.resolve.feasibility import Offer, Request
from qdx.exporter.plan.schema.choices import Choices
from qdx.targets.kernels import Kernel, offer_of

__all__ = ["Layout", "Limits", "Port", "PortChange", "TargetProfile", "list_targets", "load_target"]

_FOLDER: Final = Path(__file__).parent
_KEY: Final = re.compile(r"[a-z0-9_*?]+\.[a-z0-9_*?]+\.[A-Za-z0-9_*?.]+")

Dtype = Literal["float64", "float32", "float16", "bfloat16", "int64", "int32", "bool"]
# TOML has lists only; they are taken as tuples.
Names = Annotated[tuple[str, ...], Strict(strict=False)]
Dtypes = Annotated[tuple[Dtype, ...], Strict(strict=False)]
Kernels = Annotated[tuple[Kernel, ...], Strict(strict=False)]
Quantizers = Annotated[tuple[Literal["qdx", "nncf"], ...], Strict(strict=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True)
class Port:
    """An input or output as the artifact declares it.

    Attributes:
        name: Its name in the artifact.
        dtype: Its element type, torch's name.
        rank: Its number of dimensions; None leaves the traced one.
    """

    name: str
    dtype: str
    rank: int | None


class PortChange(_Model):
    """What a layout changes on an input or output; None leaves the traced value.

    Attributes:
        name: New name.
        dtype: New element type.
        rank: New number of dimensions: 0 a scalar, 1 one value for each batch entry.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")] | None = None
    dtype: Dtype | None = None
    rank: Annotated[int, Field(ge=0, le=1)] | None = None


class Layout(_Model):
    """Names and types that the loaders of an ecosystem expect.

    Keys of the tables are `component.method` and `component.method.tensor`, where a tensor has the
    name that tracing gave it. Keys of ports may be globs; an exact key comes first, then the globs
    in the order of the file.

    Attributes:
        model_file: File name of the model in a component's folder.
        external_data_file: File name of the weights beside it.
        halves: File names of the two models that a model is cut into; empty for one.
        dot: What stands for the dots of nested tensors' names, where those may not be.
        scalars: Whether inputs without dimensions may be; otherwise they have one, of length one.
        folders: Folder by `component.method`, where it is not the default.
        dtypes: Declared element type by traced element type, where they differ.
        inputs: Changes of inputs.
        outputs: Changes of outputs.
    """

    model_file: str
    external_data_file: str | None = None
    halves: Names = ()
    dot: Annotated[str, Field(pattern=r"^[._]$")] = "."
    scalars: bool = True
    folders: Mapping[str, str] = {}
    dtypes: Mapping[Dtype, Dtype] = {}
    inputs: Mapping[str, PortChange] = {}
    outputs: Mapping[str, PortChange] = {}

    @field_validator("inputs", "outputs")
    @classmethod
    def _keys_are_paths(cls, value: Mapping[str, PortChange]) -> Mapping[str, PortChange]:
        for key in value:
            if not _KEY.fullmatch(key):
                raise ValueError(f"{key!r}: expected component.method.tensor")
        return value

    def folder(self, component: str, method: str) -> str:
        """Returns the folder of a traced method.

        >>> layout.folder("unet", "forward"), layout.folder("vae", "decode")
        ('unet', 'vae_decoder')
        """
        default = component if method == "forward" else f"{component}_{method}"
        return self.folders.get(f"{component}.{method}", default)

    def input(self, component: str, method: str, name: str, dtype: str) -> Port:
        """Returns how the artifact declares a traced input of this name and element type."""
        return self._port(self.inputs, f"{component}.{method}.{name}", name, dtype)

    def output(self, component: str, method: str, name: str, dtype: str) -> Port:
        """Returns how the artifact declares a traced output of this name and element type."""
        return self._port(self.outputs, f"{component}.{method}.{name}", name, dtype)

    def _port(self, table: Mapping[str, PortChange], key: str, name: str, dtype: str) -> Port:
        change = table.get(key)
        if change is None:
            # A glob of three parts must not match across a dot of the first two.
            fits = (c for pattern, c in table.items() if _matches(key, pattern))
            change = next(fits, PortChange())
        declared = {str(traced): str(kept) for traced, kept in self.dtypes.items()}
        own = name.replace(".", self.dot)
        return Port(change.name or own, change.dtype or declared.get(dtype, dtype), change.rank)


def _matches(key: str, pattern: str) -> bool:
    pairs = zip(key.split(".", 2), pattern.split(".", 2), strict=True)
    return all(fnmatchcase(part, glob) for part, glob in pairs)


class Limits(_Model):
    """What a runtime on a device takes, beside types; None or empty is no limit.

    Attributes:
        rank: Most dimensions of a tensor.
        dynamic_shapes: Why shapes must be fixed.
        weights_bytes: Most bytes of weights in one file.
        weights_bytes_why: The reason of that.
    """

    rank: Annotated[int, Field(ge=1)] | None = None
    dynamic_shapes: str | None = None
    weights_bytes: Annotated[int, Field(ge=1)] | None = None
    weights_bytes_why: str = ""


class TargetProfile(_Model):
    """A runtime on a device, as data.

    Attributes:
        schema_: The format, `qdx.target/1`; the key in TOML is `schema`.
        name: What `--target` takes.
        runtime: The backend that lowers and runs.
        device: The runtime's name of the device.
        proved_on: Of a device that runs no qdx, such as a phone, its name in words: what another machine executes
            does not prove what this one does.
        extra: The extra that installs the runtime: `pip install "qdx[EXTRA]"`.
        distributions: Packages that provide the runtime, the usual one first.
        description: One line.
        storage_dtypes: Types in which weights can be stored.
        compute_dtype: Type in which operations run; `storage` for that in which a component's weights are
            stored.
        deployment_target: The oldest system that reads the artifacts, where that decides what they hold.
        runtime_versions: Versions of the runtime that the artifacts are for, such as `>=10.12,<12`, where they
            decide what these hold.
        compute_capability: Of an NVIDIA device, the least that it may have; None for any.
        refused: For types that cannot be stored, the reason.
        refused_options: For options of a plan that it cannot carry out, the reason.
        quantizers: Quantizers that can make its artifacts.
        choices: What it chooses of all that plans leave unsaid.
        kernels: What runs in low precision, and how; the first row that fits decides.
        options: The runtime's own options that change numerics, pinned.
        limits: What it takes, beside types.
        layout: Names and types that the ecosystem's loaders expect.
    """

    schema_: Literal["qdx.target/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    runtime: Literal["onnxruntime", "openvino", "coreml", "tensorrt"]
    device: str
    proved_on: str | None = None
    extra: str
    distributions: Names
    description: str
    storage_dtypes: Dtypes
    compute_dtype: Dtype | Literal["storage"]
    deployment_target: Annotated[str, Field(pattern=r"^[a-zA-Z]+[0-9]+$")] | None = None
    runtime_versions: Annotated[str, Field(pattern=r"^>=[0-9.]+(,<[0-9.]+)?$")] | None = None
    compute_capability: Annotated[tuple[int, int], Strict(strict=False)] | None = None
    refused: Mapping[str, str] = {}
    refused_options: Mapping[Annotated[str, Field(pattern=r"^mixed_precision$")], str] = {}
    quantizers: Quantizers = ("qdx",)
    choices: Choices
    kernels: Kernels = ()
    options: Mapping[str, str] = {}
    limits: Limits = Limits()
    layout: Layout

    def to_json(self) -> dict[str, Any]:
        """Returns the profile as plain JSON data, for manifests."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def offer(self, request: Request) -> Offer:
        """Says what the target makes of an operation in low precision."""
        return offer_of(self.kernels, request)


def list_targets() -> tuple[str, ...]:
    """Returns the names that `--target` takes, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def load_target(name: str) -> TargetProfile:
    """Reads the profile of a target.

    Raises:
        UsageError: There is no target of that name.
    """
    names = list_targets()
    if name not in names:
        guess = difflib.get_close_matches(name, names, n=1)
        raise UsageError(
            f"--target: {quoted(name)} is not a target; there are {', '.join(names)}",
            hint=f"did you mean `{guess[0]}`?" if guess else "`qdx targets` describes them",
        )
    try:
        profile = TargetProfile.model_validate(_data(name))
    except (tomllib.TOMLDecodeError, ValidationError) as bad:
        raise InternalError(f"{quoted(f'{name}.toml')}: not a target profile: {bad}") from bad
    if profile.name != name:
        raise InternalError(f"{quoted(f'{name}.toml')}: its name is {quoted(profile.name)}")
    return profile


def _data(name: str) -> dict[str, Any]:
    """The content of a profile's file upon that of the one that it extends."""
    # Installers may link files of a package into place.
    data = tomllib.loads(read_text(_FOLDER / f"{name}.toml", allow_hard_links=True))
    base = data.pop("extends", None)
    return data if base is None else _upon(_data(base), data)


def _upon(base: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """A profile's data in which one's own keys replace the base's; rows of kernels and choices come before the base's."""
    merged = dict(base)
    for key, value in data.items():
        under = base.get(key)
        if key == "choices" and under is not None:
            merged[key] = _upon(under, value)
        elif isinstance(value, list) and value and isinstance(value[0], dict) and under is not None:
            merged[key] = [*value, *under]
        elif isinstance(value, dict) and isinstance(under, dict):
            merged[key] = {**under, **value}
        else:
            merged[key] = value
    return merged
