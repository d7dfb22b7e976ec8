"""The base of models that files follow."""

from __future__ import annotations

from functools import cached_property

import pytest

from qdx.exporter.strict_model import StrictModel


class Numbers(StrictModel):
    values: tuple[int, ...]

    @cached_property
    def total(self) -> int:
        return sum(self.values)


@pytest.mark.parametrize("deep", [False, True])
def test_a_copy_with_other_values_works_out_its_own(deep):
    one = Numbers(values=(1, 2))
    assert one.total == 3
    other = one.model_copy(update={"values": (5,)}, deep=deep)

    assert (one.total, other.total) == (3, 5)
    assert other == Numbers(values=(5,))
