"""Every backend does what the contract says; a runtime of another package passes the same, see `tests/seams`."""

from __future__ import annotations

import pytest

from tests.support.conformance.cases import KINDS, QUANTIZED, marked
from tests.support.conformance.checks import CHECKS, KIND_CHECKS, QUANTIZED_CHECKS


@pytest.mark.parametrize("check", CHECKS)
def test_a_backend(subject, check):
    CHECKS[check](subject)


@pytest.mark.parametrize("kind", marked([*KINDS, "block"]))
@pytest.mark.parametrize("check", KIND_CHECKS)
def test_an_operation(subject, check, kind):
    KIND_CHECKS[check](subject, kind)


@pytest.mark.parametrize("kind", marked(QUANTIZED))
@pytest.mark.parametrize("check", QUANTIZED_CHECKS)
def test_a_quantized_operation(subject, check, kind):
    refusal = subject.refusal(lambda: subject.quantized(kind))
    if refusal is not None:
        assert refusal.refusals
        assert all(one.reason for one in refusal.refusals)
        pytest.skip(refusal.refusals[0].reason)
    QUANTIZED_CHECKS[check](subject, kind)
