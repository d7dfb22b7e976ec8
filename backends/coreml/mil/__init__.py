"""Reads Core ML packages and computes what they say, without Apple's framework.

program = read_package("unet/model.mlpackage")
results = Interpreter(program).run({"sample": sample, "timestep": timestep})
"""

from __future__ import annotations

from qdx.backends.coreml.mil.interpreter import Interpreter, Observer
from qdx.backends.coreml.mil.program import (
    MilConstant,
    MilFunction,
    MilOperand,
    MilOperation,
    MilProgram,
    MilValue,
    TensorType,
)
from qdx.backends.coreml.mil.reader import read_package

__all__ = [
    "Interpreter",
    "MilConstant",
    "MilFunction",
    "MilOperand",
    "MilOperation",
    "MilProgram",
    "MilValue",
    "Observer",
    "TensorType",
    "read_package",
]
