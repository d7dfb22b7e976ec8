"""Errors pass from process to process as they are."""

from __future__ import annotations

import json

import pytest

from qdx.exporter.errors import InvalidBundle, Refusal, TargetRefusal
from qdx.exporter.messages import error_message, error_of

REFUSALS = (
    Refusal("unet.conv_in", "INVALID\0NODE"),
    Refusal("unet.conv_out", "no", hint="leave it"),
)


@pytest.mark.parametrize(
    "error",
    [
        TargetRefusal("the parser refuses 2 nodes", refusals=REFUSALS, hint="lint"),
        TargetRefusal("none"),
        InvalidBundle("not a model", hint="export again"),
    ],
    ids=["refusals", "a refusal", "a bundle"],
)
def test_an_error_arrives_with_all_that_it_says(error):
    found = error_of(json.loads(json.dumps(error_message(error))))

    assert type(found) is type(error)
    assert str(found) == str(error).replace("\0", "\\x00")


def test_the_process_that_it_comes_from_stands_before_it():
    found = error_of(error_message(TargetRefusal("no", refusals=REFUSALS)), place="child: ")

    assert found.message == "child: no"
    assert [each.hint for each in found.refusals] == [None, "leave it"]
    assert error_of({"opened": True}) is None
