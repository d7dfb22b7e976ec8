"""Planted models of every rule of the lint."""

from __future__ import annotations

from tests.support import lint_block_cases as block_cases
from tests.support import lint_operator_cases as operator_cases
from tests.support import lint_placement_cases as placement_cases
from tests.support import lint_quantizer_cases as quantizer_cases

CASES = {
    **quantizer_cases.CASES,
    **operator_cases.CASES,
    **placement_cases.CASES,
    **block_cases.CASES,
}
"""By rule: what it accepts, what it rejects with which message, and the device of what it accepts."""
