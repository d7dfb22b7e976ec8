"""One run of the reference on disk: its calls, what it made, and its final latents."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qdx.exporter.errors import InvalidInput, InvalidModel, StorageError, quoted
from qdx.exporter.files import dump_json, load_json
from qdx.runtime.reference import RecordedCall, RecordedMethod
from qdx.runtime.tensor_folder import StoredTensors, TensorFolder
from qdx.verification.measure.samples import Made

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from qdx.runtime.generate import Products

__all__ = ["INDEX_NAME", "RUN_SCHEMA", "DamagedRun", "RecordedRun"]

INDEX_NAME: Final = "reference.json"
RUN_SCHEMA: Final = "qdx.reference/1"

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0)]
# Pairs, because the order of a method's outputs and of methods counts and JSON objects have none.
_Tensors = tuple[tuple[str, _Digest], ...]


class DamagedRun(InvalidInput):
    """The files of a recorded run are not as they were written."""


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Call(_Record):
    index: _Count
    inputs: _Tensors
    outputs: _Tensors


class _Method(_Record):
    where: str
    times_called: Annotated[int, Field(ge=1)]
    calls: Annotated[tuple[_Call, ...], Field(min_length=1)]


class _Index(_Record):
    schema_: Literal["qdx.reference/1"] = Field(alias="schema")
    products: _Tensors
    latents: _Digest | None
    methods: tuple[_Method, ...]


class RecordedRun:
    """A run whose tensors are on disk; each access reads them again.

    Args:
        path: Holds the files.
        index: What they are.

    Attributes:
        path: As given.
    """

    def __init__(self, path: Path, index: _Index) -> None:
        self.path = path
        self._index = index
        self._folder = TensorFolder(path)

    @classmethod
    def write(
        cls,
        folder: TensorFolder,
        products: Products,
        latents: torch.Tensor | None,
        records: Mapping[str, RecordedMethod],
    ) -> RecordedRun:
        """Completes a folder that has the calls already.

        Args:
            folder: Took the calls while they were recorded.
            products: What the pipeline made, by field of its output.
            latents: Its final latents, where it tells them.
            records: The calls, in `folder`.

        Raises:
            StorageError: The disk refused.
            UsageError: A product is of a type that cannot be stored.
        """
        made = folder.store({name: torch.from_numpy(one) for name, one in products.items()})
        final = None if latents is None else folder.store({"latents": latents}).digests["latents"]
        value = {
            "schema": RUN_SCHEMA,
            "products": _pairs(made),
            "latents": final,
            "methods": [
                {
                    "where": where,
                    "times_called": record.times_called,
                    "calls": [
                        {
                            "index": call.index,
                            "inputs": _pairs(call.inputs),
                            "outputs": _pairs(call.outputs),
                        }
                        for call in record.calls
                    ],
                }
                for where, record in records.items()
            ],
        }
        data = dump_json(value)
        path = folder.path / INDEX_NAME
        try:
            path.write_bytes(data)
        except OSError as error:
            raise StorageError(f"{quoted(path)}: cannot be written, {error.strerror}") from error
        return cls(folder.path, _Index.model_validate_json(data))

    @classmethod
    def read(cls, path: Path) -> RecordedRun:
        """Opens a run that was written; the headers of all its tensors are checked.

        Raises:
            DamagedRun: The index or a tensor's file is missing, malformed or does not fit.
            StorageError: Reading failed.
        """
        source = path / INDEX_NAME
        value = load_json(source, error=DamagedRun)
        try:
            # From our own canonical text, so that only one JSON reader decides what the file means.
            index = _Index.model_validate_json(dump_json(value))
        except ValidationError as bad:
            first = bad.errors(include_url=False, include_context=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise DamagedRun(f"{quoted(source)}: {quoted(key)}: {first['msg']}") from None
        _check(index, source)
        run = cls(path, index)
        try:
            for digest in _digests(index):
                run._folder.rank(digest)  # our own
        except InvalidModel as bad:
            raise DamagedRun(bad.message) from bad
        return run

    @property
    def made(self) -> Made:
        """What the pipeline made; read at each access."""
        products = {name: one.numpy() for name, one in self._stored(self._index.products).items()}
        final = self._index.latents
        return Made(products, None if final is None else self._folder.read(final))

    @cached_property
    def records(self) -> dict[str, RecordedMethod]:
        """The calls by `component.method`, in order of first use; their tensors stay on disk."""
        return {
            method.where: RecordedMethod(
                method.times_called,
                tuple(
                    RecordedCall(call.index, self._stored(call.inputs), self._stored(call.outputs))
                    for call in method.calls
                ),
            )
            for method in self._index.methods
        }

    def records_with(self, fields: Mapping[str, AbstractSet[str]]) -> dict[str, RecordedMethod]:
        """The calls, of some methods with fewer outputs.

        Args:
            fields: Names of the outputs by `component.method`; a method that is missing here has all.
        """
        return {where: record.only(fields.get(where)) for where, record in self.records.items()}

    def _stored(self, tensors: _Tensors) -> StoredTensors:
        return StoredTensors(self._folder, dict(tensors))


def _pairs(tensors: Mapping[str, torch.Tensor]) -> list[list[str]]:
    assert isinstance(tensors, StoredTensors), "a recorded call is in memory"
    return [[name, digest] for name, digest in tensors.digests.items()]


def _digests(index: _Index) -> set[str]:
    found = {digest for _, digest in index.products}
    for call in itertools.chain.from_iterable(method.calls for method in index.methods):
        found |= {digest for _, digest in (*call.inputs, *call.outputs)}
    return found if index.latents is None else {*found, index.latents}


def _check(index: _Index, source: Path) -> None:
    """Refuses an index that says something twice, or calls that were not made."""
    _check_unique("methods", (method.where for method in index.methods), source)
    _check_unique("products", (name for name, _ in index.products), source)
    for method in index.methods:
        indices = [call.index for call in method.calls]
        if indices != sorted(set(indices)) or indices[-1] >= method.times_called:
            raise DamagedRun(
                f"{quoted(source)}: {quoted(method.where)}: calls {indices[:3]}... of "
                f"{method.times_called}, expected positions in order"
            )
        for call in method.calls:
            for tensors in (call.inputs, call.outputs):
                _check_unique(method.where, (name for name, _ in tensors), source)


def _check_unique(what: str, names: Iterable[str], source: Path) -> None:
    found = list(names)
    if len(set(found)) != len(found):
        raise DamagedRun(f"{quoted(source)}: {quoted(what)}: a name comes twice")
