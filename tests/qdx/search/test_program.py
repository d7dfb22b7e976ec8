"""The solver keeps quiet where data is printed."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from qdx.search.program import minimized

LARGE = """
import random, sys
from tests.support.searching import problem
from qdx.search.solve import Objective, budget_rows, solve
generator = random.Random(0)
one = problem([10 ** generator.uniform(-3, 3) for _ in range(400)], (16, 8, 6, 5, 4, 3, 2, 1),
              [generator.randrange(1000, 4000000) for _ in range(400)])
rows = budget_rows(one, {"average_bits": 3.0, "latency_ms": 80})
solve(one, Objective({"prediction": 1.0}), rows)
sys.stdout.write('{"done": true}')
"""


def test_nothing_but_data_is_on_standard_output():
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, check=True)

    assert json.loads(done.stdout) == {"done": True}


def test_what_cannot_be_is_none():
    from scipy.optimize import LinearConstraint

    sums = LinearConstraint(np.ones((1, 2)), 3, 3)
    assert minimized(np.ones(2), [sums], scale=1.0) is None
    assert minimized(np.ones(2), [LinearConstraint(np.ones((1, 2)), 1, 1)], scale=1.0).sum() == 1
