from __future__ import annotations

import pytest

from qdx.exporter.errors import UsageError
from qdx.verification.sources import check_sources
from qdx.verification.verify import verify


def test_one_of_model_and_reference_is_what_a_bundle_is_compared_with():
    check_sources("model", None)
    check_sources(None, "reference")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "neither --model nor --reference"),
        ({"model": "m", "reference": "r"}, "--reference: does not go together with --model"),
    ],
    ids=["neither", "both"],
)
def test_neither_and_both_are_refused_before_anything_is_opened(given, words, tmp_path):
    with pytest.raises(UsageError, match=words) as caught:
        verify(tmp_path / "nothing", **given)

    assert "--model" in caught.value.hint
