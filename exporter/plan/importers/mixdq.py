"""Maps of bits of MixDQ, ViDiT-Q and Q-VDiT: a number for each module, also by ranges of steps.

The two kinds of files, for weights and for activations, look alike: `mixdq` reads the former and `mixdq-act` the latter. What is not a map is the
tools' own configuration, of which bits, granularity and smoothing are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from qdx.exporter.errors import quoted
from qdx.exporter.plan.importers.draft import WEIGHTED, Draft
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.plan.importers.importer import PlanImporter
from qdx.exporter.plan.importers.schemes import (
    NoScheme,
    Scheme,
    by_channel,
    by_tensor,
    integers,
    scheme_words,
)

__all__ = ["MixDq", "MixDqInputs"]

_RANGE: Final = re.compile(r"([0-9]{1,4})-([0-9]{1,4})", re.ASCII)
_FLOAT_BITS: Final = (16, 32)
_GROUPS_MOST: Final = 100


class MixDq(PlanImporter):
    """Reads `{"model.down_blocks.0.resnets.0.conv1": 8}` as bits of weights, and `{"quant": {...}}`."""

    tool = "mixdq"
    title = "MixDQ and ViDiT-Q"
    reads = "YAML of the bits of each module's weights, or their configuration (`quant` in it)"

    def recognizes(self, data: Mapping[str, Any]) -> bool:
        """See `PlanImporter`: a map may be of weights or of activations, which nobody can tell."""
        quant = data.get("quant")
        return isinstance(quant, dict) and "weight" in quant and "activation" in quant

    def read(self, root: Foreign, draft: Draft) -> None:
        """See `PlanImporter`."""
        if root.find("quant") is not None:
            _configuration(root, draft)
        elif _is_by_steps(root):
            _weights_by_steps(root, draft)
        else:
            for bits, names in _by_bits(root).items():
                _weights(root, bits, names, draft)


class MixDqInputs(MixDq):
    """Reads the same map as bits of inputs."""

    tool = "mixdq-act"
    title = "MixDQ and ViDiT-Q"
    reads = "YAML of the bits of each module's activations, also by ranges of steps"

    def recognizes(self, data: Mapping[str, Any]) -> bool:
        """See `PlanImporter`."""
        del data
        return False

    def read(self, root: Foreign, draft: Draft) -> None:
        """See `PlanImporter`."""
        if not _is_by_steps(root):
            for bits, names in _by_bits(root).items():
                _inputs(root, bits, names, draft, None)
            return
        ranges = _steps(root)
        total = 1 + max(high for high, _, _ in ranges)
        if total > _GROUPS_MOST:
            draft.refuse(root, f"{total} steps; a plan has at most {_GROUPS_MOST} groups of timesteps")  # fmt: skip
            return
        draft.calibration = {"timestep_groups": total, "steps": total}
        for high, low, part in ranges:
            span = [round((total - 1 - high) / total, 9), round((total - low) / total, 9)]
            for bits, names in _by_bits(part).items():
                _inputs(part, bits, names, draft, span)


def _is_by_steps(root: Foreign) -> bool:
    members = list(root.members())
    return bool(members) and all(_RANGE.fullmatch(key) and isinstance(one.value, dict) for key, one in members)  # fmt: skip


def _steps(root: Foreign) -> list[tuple[int, int, Foreign]]:
    """Ranges of steps, counted down to 0 at the end of the schedule."""
    found = []
    for key, one in root.members():
        match = _RANGE.fullmatch(key)
        assert match is not None
        high, low = int(match[1]), int(match[2])
        if low > high:
            one.fail("a range that falls, such as `14-10`")
        found.append((high, low, one))
    return sorted(found, key=lambda each: -each[0])


def _weights_by_steps(root: Foreign, draft: Draft) -> None:
    """Weights are the same at all steps: those that are said to be others are refused."""
    parts = [(one, {n: b.integer(1) for n, b in one.members()}) for _, _, one in _steps(root)]
    first = parts[0][1]
    differ = [name for name in first if any(part.get(name) != first[name] for _, part in parts)]
    if differ:
        draft.refuse(root, f"{len(differ)} modules whose weights have other bits at other steps, the first {quoted(differ[0])}; stored weights are the same at all")  # fmt: skip
    same: dict[int, list[str]] = {}
    for name, bits in first.items():
        if name not in set(differ):
            same.setdefault(bits, []).append(_module(name))
    for bits, names in same.items():
        _weights(root, bits, names, draft)


def _module(name: str) -> str:
    return name.removeprefix("model.")


def _by_bits(root: Foreign) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name, bits in root.members():
        found.setdefault(bits.integer(1), []).append(_module(name))
    return dict(sorted(found.items()))


def _weights(place: Foreign, bits: int, names: list[str], draft: Draft) -> None:
    if bits in _FLOAT_BITS:
        draft.rule("float", op=WEIGHTED, modules=names, weights={"dtype": "float"})
        draft.exact(place, f"weights of {len(names)} modules stay float")
        return
    try:
        scheme = by_channel(integers(bits, symmetric=False))
    except NoScheme as bad:
        draft.refuse(place, f"weights of {len(names)} modules, the first {quoted(names[0])}: {bad}")
        return
    draft.rule(f"w{bits}", op=WEIGHTED, modules=names, weights=scheme)
    draft.exact(place, f"weights of {len(names)} modules: {scheme_words(scheme)}")


def _inputs(
    place: Foreign, bits: int, names: list[str], draft: Draft, span: list[float] | None
) -> None:
    if bits in _FLOAT_BITS and span is None:
        draft.rule("float-inputs", op=WEIGHTED, modules=names, inputs={"dtype": "float32"})
        draft.exact(place, f"inputs of {len(names)} modules stay float")
        return
    widths = {2: "int2", 3: "int3", 4: "int4", 5: "int5", 6: "int6", 8: "int8"}
    if bits not in widths:
        draft.refuse(place, f"inputs of {len(names)} modules in {bits} bits{' at some steps' if span else ''}")  # fmt: skip
        return
    # Eight bits at some timesteps have no zero point of their own.
    symmetric = span is not None and bits == 8
    scheme: Scheme = {"dtype": widths[bits], "symmetric": symmetric}
    select = {} if span is None else {"select": {"timesteps": span}}
    draft.rule(f"a{bits}", op=WEIGHTED, modules=names, inputs=scheme, **select)
    words = f"inputs of {len(names)} modules: {scheme_words(scheme)}"
    if span is not None:
        words += f", from {span[0]:.3g} to {span[1]:.3g} of the schedule"
    if symmetric:
        draft.approximate(place, f"{words}; without a zero point, which is the same at all timesteps in eight bits")  # fmt: skip
    else:
        draft.exact(place, words)


def _configuration(root: Foreign, draft: Draft) -> None:
    """The tools' own configuration: one scheme for all layers."""
    quant = root.need("quant")
    weight = quant.need("weight").need("quantizer")
    activation = quant.need("activation").need("quantizer")
    parts: dict[str, Any] = {}
    try:
        parts["weights"] = _shared(integers(_bits(weight), symmetric=_symmetric(weight)), weight)
        inputs = _configured_inputs(activation)
        if inputs is not None:
            parts["inputs"] = inputs
    except NoScheme as bad:
        draft.refuse(quant, str(bad))
        return
    draft.rule("all", op=WEIGHTED, **parts)
    draft.exact(weight, f"weights {scheme_words(parts['weights'])}")
    if "inputs" in parts:
        draft.exact(activation, f"inputs {scheme_words(parts['inputs'])}")
    for place, key, plain in ((weight, "scale_method", "min_max"), (weight, "round_mode", "nearest"), (activation, "scale_method", "min_max")):  # fmt: skip
        found = place.find(key)
        if found is not None and not found.is_any(plain, "max"):
            draft.refuse(found, f"{quoted(key)} {quoted(found.value)}; here ranges are of all values, and weights are rounded to the nearest")  # fmt: skip
    smooth = activation.find("smooth_quant")
    if smooth is not None:
        draft.refuse(
            smooth, "smoothing with an alpha for each range of timesteps, and channel masks"
        )
    draft.refuse_others(
        root, ("quant",), harmless=("calib_data", "conditional", "model", "mixed_precision")
    )


def _bits(place: Foreign) -> int:
    return place.need("n_bits").integer(1)


def _symmetric(place: Foreign) -> bool:
    found = place.find("sym")
    return found is not None and found.boolean()


def _shared(scheme: Scheme, place: Foreign) -> Scheme:
    found = place.find("per_group")
    kind = None if found is None else found.value
    if kind == "channel":
        return by_channel(scheme)
    if kind in {None, False, "tensor"}:
        return by_tensor(scheme)
    raise NoScheme(f"weights in groups by {quoted(kind)}")


def _configured_inputs(place: Foreign) -> Scheme | None:
    bits = _bits(place)
    if bits in _FLOAT_BITS:
        return None
    dynamic = place.find("dynamic")
    if dynamic is not None and dynamic.boolean():
        if bits != 8 or not _symmetric(place):
            raise NoScheme("dynamic inputs other than symmetric ones of 8 bits")
        return {"dtype": "int8", "granularity": "token", "mode": "dynamic"}
    return {"dtype": f"int{bits}", "symmetric": _symmetric(place)}
