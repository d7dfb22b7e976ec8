"""What a component of a bundle is in, in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qdx.bundle.precisions import Operations, Precision

__all__ = ["precision_words"]

_FORMS: Final = {"simulated": ", computed wider", "stored": ", computed as floats"}


def precision_words(operations: Operations, stored: str, computed: str) -> str:
    """Returns the precisions of a component, such as `int8 weights x int8 inputs in 102 of 120 operations, else float32`.

    Args:
        operations: Its operations.
        stored: Type in which its float weights are stored.
        computed: Type in which its float operations run.
    """
    floats = stored if computed == stored else f"{stored}, computed in {computed}"
    if not operations.quantized:
        return floats
    words = [f"{_words(one)} in {count:,}" for one, count in operations.quantized]
    return f"{'; '.join(words)} of {operations.total:,} operations, else {floats}"


def _words(one: Precision) -> str:
    inputs = "/".join(one.inputs)
    varying = " by timestep" if len(one.inputs) > 1 else ""
    form = _FORMS.get(one.form, "")
    if one.weights is None:
        return f"{inputs} inputs{varying}{form}"
    held = f" held in {one.stored}" if one.stored is not None else ""
    fed = f"{inputs} inputs" if inputs else "float inputs"
    return f"{one.weights} weights{held} x {fed}{varying}{form}"
