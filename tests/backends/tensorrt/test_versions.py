from __future__ import annotations

import pytest

from qdx.backends.tensorrt.versions import (
    FEATURES,
    OPERATORS,
    SUPPORTED,
    Version,
    VersionRange,
    largest_opset,
    version_of,
)
from qdx.exporter.errors import UsageError


def test_versions_are_compared_by_number():
    assert version_of("10.9.0.34") < version_of("10.12") < version_of("11.4.0.106")
    assert str(version_of("11")) == "11.0"


def test_a_range_holds_its_lower_end_and_not_its_upper_one():
    found = VersionRange.parse(">=10.12,<12")

    assert found == SUPPORTED
    assert str(found) == ">=10.12,<12.0"
    assert [Version(*each) in found for each in ((10, 11), (10, 12), (11, 4), (12, 0))] == [
        False,
        True,
        True,
        False,
    ]
    assert Version(99, 0) in VersionRange.parse(">= 10.15")


@pytest.mark.parametrize("text", ["", "10.12", "<12", ">=11,<10", ">=ten", ">=10.12,<=12"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(UsageError, match="expected"):
        VersionRange.parse(text)


def test_operators_come_with_their_features():
    assert OPERATORS["Attention"] == FEATURES["attention"] == Version(10, 14)
    assert OPERATORS["Swish"] == Version(11, 0)
    assert OPERATORS["Conv"] < SUPPORTED.lowest
    assert "QLinearConv" not in OPERATORS


def test_the_newest_operator_set_is_known_from_10_15_on():
    assert [largest_opset(Version(*each)) for each in ((10, 12), (10, 15), (11, 4))] == [
        None,
        24,
        25,
    ]
