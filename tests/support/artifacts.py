"""Stand-ins for artifacts: a pipeline's own components in PyTorch, behind the interface of a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qdx.exporter.capture.arguments import complete_call
from qdx.exporter.capture.calls import substitute
from qdx.exporter.capture.distributions import flatten_output
from qdx.exporter.capture.dry_run import intercept
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.materialize import load_pipeline
from qdx.runtime.generate import Products, generate
from qdx.runtime.reference import RecordedMethod, record_calls
from tests.support.tiny import FAMILIES, build

Method = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class Reference:
    """A tiny pipeline, what it made, what its components did, and a perfect artifact of it."""

    folder: Path
    pipeline: Any
    modules: dict[str, Any]
    call: dict[str, Any]
    products: Products
    records: dict[str, RecordedMethod]
    methods: dict[str, Method]


def make_reference(family: str, folder: Path) -> Reference:
    build(family, folder)
    skeleton = load_pipeline(read_pipeline_folder(folder))
    call = complete_call(skeleton.pipeline, FAMILIES[family].arguments())
    patterns = _arguments(skeleton, call)
    products, records = record_calls(
        skeleton.modules, lambda: generate(skeleton.pipeline, call, seed=0)
    )
    methods = {
        where: as_method(skeleton.modules[where.split(".")[0]], where.split(".")[1], arguments)
        for where, arguments in patterns.items()
    }
    return Reference(folder, skeleton.pipeline, skeleton.modules, call, products, records, methods)


def as_method(module: Any, method: str, arguments: dict[str, Any]) -> Method:
    """A component's method as a target runs it: tensors by name in, fields by name out."""

    def run(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            full = {**substitute(arguments, tensors), "return_dict": True}
            return flatten_output(getattr(module, method)(**full))

    run.arguments = arguments
    return run


def _arguments(skeleton: Any, call: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The first arguments of every method, to be filled with other tensors."""
    found: dict[str, dict[str, Any]] = {}

    def answer(call):
        found.setdefault(call.where, call.arguments)
        return call.compute()

    with intercept(skeleton.modules, answer):
        generate(skeleton.pipeline, call, seed=1)
    return found
