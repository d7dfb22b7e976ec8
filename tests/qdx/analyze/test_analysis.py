"""What an analysis may say: a file that was changed by hand contradicts itself somewhere."""

from __future__ import annotations

import copy

import pytest
from pydantic import ValidationError

from qdx.analyze.analysis import Analysis
from qdx.exporter.strict_json import dump_json
from tests.support.searching import analysis

WHOLE = analysis().to_json()


def changed(change):
    data = copy.deepcopy(WHOLE)
    change(data)
    return Analysis.model_validate_json(dump_json(data))


def test_what_was_written_is_read():
    assert changed(lambda data: None) == analysis()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["groups"][3].update(sites=["conv_in"]), "`conv_in` is of two groups"),
        (lambda d: d["noise"]["single"][5].update(where="vae.decode"), "has no option"),
        (lambda d: d["noise"]["single"][5].update(option=4), "has no option 4"),
        (lambda d: d["noise"]["single"].append(d["noise"]["single"][5]), "comes twice"),
        (lambda d: d["noise"]["single"][5].update(group=None), "a group that there is not"),
        (lambda d: d["noise"]["single"][5].update(prediction=-1.0), "greater than or equal to 0"),
        (lambda d: d["noise"].update(measures=["prediction"]), "expected prediction, unconditional"),
        (lambda d: d.update(calls=[]), "those of `unet.forward` have weights of 0"),
        (lambda d: d["calls"][0].update(weight=0.5), "weights of 0.5, not of 1"),
        (lambda d: d["groups"][3].update(id=4), "is not the place in the list"),
        (lambda d: d["groups"][3]["offers"].pop(0), "expected float and others in order"),
        (lambda d: d["groups"][3]["offers"][-1].update(option=9), "there is no option 9"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(change, words):
    with pytest.raises(ValidationError, match=words):
        changed(change)
