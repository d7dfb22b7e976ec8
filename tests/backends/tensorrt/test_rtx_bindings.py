"""What TensorRT-RTX's own parser says of the tables of operators; its names are held to in `test_bindings`."""

from __future__ import annotations

import json

from qdx.backends.tensorrt.flavour import RTX
from qdx.backends.tensorrt.versions import OPERATORS, TRT_OPERATORS
from tests.support.tensorrt_bindings import run_with_rtx


def test_the_operators_that_it_reads_are_those_of_its_table():
    """Asked of the parser itself: what the table lets pass it reads, and what it is said to lack it does not."""
    version = RTX.supported.lowest
    known = {
        name
        for table in (OPERATORS, TRT_OPERATORS)
        for name, first in table.items()
        if first <= RTX.table_version(version)
    } - RTX.lacks
    script = f"""
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
parser = trt.OnnxParser(builder.create_network(1), logger)
asked = {sorted(known | RTX.lacks)!r}
print(json.dumps([name for name in asked if not parser.supports_operator(name)]))
"""

    assert set(json.loads(run_with_rtx(script).splitlines()[-1])) == RTX.lacks
