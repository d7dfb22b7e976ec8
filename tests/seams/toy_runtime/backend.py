"""The toy as a backend: the contract, and none of the capabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from qdx.backends.contract import KernelExecution, LoweredFiles, Proof, check_inputs
from qdx.backends.place import PlacedInput, place_sites
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.graph.ir.graph import TensorSpec
from tests.seams.toy_runtime.program import PROGRAM, WEIGHTS, execute, read, write

_DISTRIBUTION = "toy-runtime"
_OPTIONS: dict[str, str] = {}


class ToyBackend:
    """See `qdx.backends.contract.Backend`."""

    name = "toy"

    def place(self, graph, sites, resolved, ranges):
        """Signed integers before each operation."""
        return place_sites(graph, sites, resolved, ranges, _input)

    def lower(self, graph, float_types, profile, folder):
        """Writes the program and its weights."""
        del float_types, profile
        write(graph, folder)
        return LoweredFiles(folder / PROGRAM, (folder / WEIGHTS,))

    def open(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> ToyRunner:
        """Reads them."""
        del threads
        _check(options)
        return ToyRunner(folder)

    def audit(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> tuple[KernelExecution, ...]:
        """The calls of the program, in 8 bits where all that they multiply is dequantized."""
        del threads
        _check(options)
        program, _ = read(folder)
        calls = {call["name"]: call for call in program["calls"]}
        found = []
        for key, (node, ports) in program["sites"].items():
            call = calls[node]
            weight = [1] if len(ports) == 1 and len(call["args"]) > 1 else []
            read_by = [call["args"][index] for index in (*ports, *weight)]
            makers = [calls.get(one["node"]) for one in read_by if isinstance(one, dict)]
            narrow = bool(makers) and all(
                one is not None and one["operator"].startswith("qdx.dequantize") for one in makers
            )
            precision = "int8" if narrow else "float32"
            found.append(KernelExecution(node, call["operator"], precision, (key,)))
        return tuple(found)

    def proof(self, folders: Sequence[Path]) -> Proof:
        """It runs where PyTorch does."""
        del folders
        return Proof("device-verified", f"toy {version(_DISTRIBUTION)} on PyTorch")

    def versions(self) -> dict[str, str]:
        """Of the toy."""
        return {_DISTRIBUTION: version(_DISTRIBUTION)}


class ToyRunner:
    """A program that was read."""

    def __init__(self, folder: Path) -> None:
        self._program, self._weights = read(folder)
        self.inputs = tuple(map(_spec, self._program["inputs"]))
        self.outputs = tuple(map(_spec, self._program["outputs"]))

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs once."""
        check_inputs(self.inputs, inputs)
        tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
        results = execute(self._program, self._weights, tensors)
        return {name: tensor.numpy().copy() for name, tensor in results.items()}


def _input(placed: PlacedInput):
    return placed.from_ranges(signed=True, symmetric=False)


def _check(options: Mapping[str, str]) -> None:
    for name in options.keys() - _OPTIONS.keys():
        raise UsageError(f"the toy has no option {quoted(name)}")


def _spec(one: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(one["name"], one["dtype"], tuple(one["shape"]))
