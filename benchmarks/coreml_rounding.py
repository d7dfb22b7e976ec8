"""What rounding to float16 costs: operation by operation at one step, or plan by plan over the steps.

    python -m benchmarks.coreml_rounding samples/shapes unet
    python -m benchmarks.coreml_rounding samples/shapes-mmdit transformer --step 18
    python -m benchmarks.coreml_rounding samples/shapes unet --plans float16 --target mac-gpu

The denoiser's calls in a run of 20 steps, guidance 4, with the float pipeline's own inputs, in the interpreter; SQNR and
PSNR are against float PyTorch. Without plans, a float32 package: each line rounds the results of one operation, or of all
of a kind, at one step and leaves the others in float32.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

import qdx
from qdx.backends.coreml.artifact import read_artifact
from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.backends.coreml.mil.program import MilOperation, MilProgram
from qdx.bench.calls import MethodCalls, reference_calls
from qdx.bundle.reader import read_bundle
from qdx.exporter.measure.metrics import psnr_db, sqnr_db
from qdx.runtime.methods import TargetMethod
from qdx.runtime.pipeline import open_methods

_STEPS: Final = 20
_CALL: Final = {
    "prompt": "a red circle left of a blue square",
    "guidance_scale": 4,
    "num_inference_steps": _STEPS,
}
_SHOWN: Final = 12
_MOVES: Final = frozenset({"reshape", "transpose", "split", "concat", "slice_by_index", "expand_dims", "squeeze", "tile"})  # fmt: skip
"""Operations whose results are rounded already where their inputs are."""


@dataclass(frozen=True)
class Call:
    """One call of a component.

    Attributes:
        program: Computes it.
        inputs: By the program's names.
        expected: What float PyTorch answers.
        output: The program's name of that.
    """

    program: Interpreter
    inputs: Mapping[str, NDArray[Any]]
    expected: torch.Tensor
    output: str

    def sqnr_db(
        self, rounded: Collection[str] = (), inputs: Mapping[str, NDArray[Any]] | None = None
    ) -> float:
        """With the results of these names rounded."""

        def observe(name: str, value: torch.Tensor) -> torch.Tensor | None:
            return value.half().float() if name in rounded and value.is_floating_point() else None

        found = self.program.run(self.inputs if inputs is None else inputs, observe)
        return sqnr_db(self.expected, torch.from_numpy(found[self.output]))

    def with_rounded_inputs(self) -> float:
        """With the inputs rounded and all else in float32."""
        floats = {
            name: array.astype(np.float16).astype(np.float32) if array.dtype.kind == "f" else array
            for name, array in self.inputs.items()
        }
        return self.sqnr_db(inputs=floats)


@dataclass(frozen=True)
class Denoiser:
    """A component in a package, with its calls in the float pipeline.

    Attributes:
        method: Adapts the pipeline's inputs to the package.
        calls: Of one run.
        program: Of the package.
        interpreter: Computes it.
    """

    method: TargetMethod
    calls: MethodCalls
    program: MilProgram
    interpreter: Interpreter

    @classmethod
    def exported(
        cls, model: Path, component: str, plan: str, folder: Path, target: str = "coreml"
    ) -> Denoiser:
        """Exports it.

        Args:
            model: The pipeline folder.
            component: Its name.
            plan: Name of a preset, in float types.
            folder: Takes the bundle.
            target: Name of a target of Core ML.
        """
        call = {**_CALL, **({"max_sequence_length": 16} if component == "transformer" else {})}
        bundle = folder / plan
        qdx.export(
            model, target=target, plan=plan, output=bundle, call=call, components=[component]
        )
        opened = read_bundle(bundle)
        where = f"{component}.forward"
        calls = reference_calls(opened.manifest, model, steps=_STEPS, keep=_STEPS)[where]
        artifact = opened.manifest.components[component].methods["forward"].opened
        program = read_artifact(opened.path / artifact)
        return cls(open_methods(opened)[where], calls, program, Interpreter(program))

    @property
    def operations(self) -> list[MilOperation]:
        """Those of the program that compute."""
        return [op for op in self.program.main.operations if op.kind != "const"]

    def call(self, step: int) -> Call:
        """The call of one step, from 0; -1 is the last."""
        adapted = self.method.adapted(dict(self.calls.inputs[step]))
        (port,) = self.method.outputs
        return Call(
            self.interpreter,
            {name: tensor.numpy() for name, tensor in adapted.items()},
            self.calls.outputs[step][port.field],
            port.name,
        )


def steps(denoisers: Mapping[str, Denoiser]) -> Iterator[str]:
    """The table of plans by steps."""
    yield f"| SQNR, PSNR in dB at step | {' | '.join(str(step + 1) for step in range(_STEPS))} |"
    yield "|---" * (_STEPS + 1) + "|"
    for plan, denoiser in denoisers.items():
        cells = []
        for step in range(_STEPS):
            call = denoiser.call(step)
            found = torch.from_numpy(call.program.run(call.inputs)[call.output])
            peak_db = psnr_db(call.expected, found, peak=None)
            cells.append(f"{sqnr_db(call.expected, found):.1f}, {peak_db:.1f}")
        yield f"| `{plan}` | {' | '.join(cells)} |"


def lines(call: Call, operations: list[MilOperation]) -> Iterator[str]:
    """The table."""

    def row(what: str, count: int, measure: Callable[[], float]) -> tuple[float, str]:
        found = measure()
        return found, f"| {what} | {count} | {found:.1f} |"

    def names(of: Collection[MilOperation]) -> frozenset[str]:
        return frozenset(value.name for op in of for value in op.outputs)

    yield "| rounded | operations | SQNR, dB |"
    yield "|---|---|---|"
    yield row("nothing", 0, call.sqnr_db)[1]
    yield row("inputs", len(call.inputs), call.with_rounded_inputs)[1]
    yield row("all operations", len(operations), lambda: call.sqnr_db(names(operations)))[1]
    computing = [op for op in operations if op.kind not in _MOVES]
    kinds = sorted({op.kind for op in computing})
    of_kind = {kind: [op for op in computing if op.kind == kind] for kind in kinds}
    by_kind = [
        row(f"every `{kind}`", len(ops), lambda ops=ops: call.sqnr_db(names(ops)))  # type: ignore[misc]
        for kind, ops in of_kind.items()
    ]
    single = [
        row(f"`{op.name}`", 1, lambda op=op: call.sqnr_db(names([op])))  # type: ignore[misc]
        for op in computing
    ]
    for found in (by_kind, single):
        yield from (text for _, text in sorted(found)[:_SHOWN])


def main() -> None:
    """Measures and says the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("component")
    parser.add_argument("--step", type=int, default=-1)
    parser.add_argument("--plans", nargs="+", help="presets in float types, at every step")
    parser.add_argument("--target", default="coreml", help="mac-gpu has float32 between products")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        denoisers = {
            plan: Denoiser.exported(
                options.model, options.component, plan, Path(folder), options.target
            )
            for plan in options.plans or ("float32",)
        }
        if options.plans:
            table = steps(denoisers)
        else:
            (denoiser,) = denoisers.values()
            table = lines(denoiser.call(options.step), denoiser.operations)
        for line in table:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
