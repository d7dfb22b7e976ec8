"""What is declared of a graph's or an artifact's input or output. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TensorSpec"]


@dataclass(frozen=True)
class TensorSpec:
    """A graph's input or output.

    Attributes:
        name: Its name, such as `encoder_hidden_states`.
        dtype: torch's name of the dtype, such as `float32`.
        shape: Sizes; a string is the symbol of a dynamic dimension.
        pairs: Whether it holds complex numbers, each as its real and imaginary part in the last dimension.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    pairs: bool = False
