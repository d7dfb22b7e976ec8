from __future__ import annotations

import math

import numpy as np
import pytest

from qdx.exporter.errors import UsageError
from qdx.verification.measure.score import load_score
from tests.support.layers import ROOT

PICTURES = np.stack([np.full((8, 8, 3), level) for level in (0.25, 0.75)])


def written(tmp_path, text):
    path = tmp_path / "score.py"
    path.write_text(text)
    return f"{path}:judge"


def test_every_picture_is_scored_by_its_prompt(tmp_path):
    text = "def judge(picture, prompt):\n    return picture.mean() * (prompt == 'a')\n"
    score = load_score(written(tmp_path, text))

    assert score.mean(PICTURES, ("a", "a")) == pytest.approx(0.5)
    assert score.mean(PICTURES, ("a", "b")) == pytest.approx(0.125)
    assert score.mean(PICTURES, ("a",)) == pytest.approx(0.5)
    assert score.name == "score.py:judge"


def test_a_file_of_a_package_can_import_its_neighbours():
    score = load_score(f"{ROOT}/samples/reader.py:slot_accuracy")

    assert score.mean(np.full((1, 64, 64, 3), 0.9), ("a red circle on the left",)) < 0.5


@pytest.mark.parametrize("pictures", [None, PICTURES * math.nan])
def test_no_picture_has_no_score(tmp_path, pictures):
    score = load_score(written(tmp_path, "def judge(picture, prompt):\n    return 1\n"))

    assert math.isnan(score.mean(pictures, ("a",)))


@pytest.mark.parametrize("answer", ["1.5", "-0.1", "float('nan')", "None", "1 / 0"])
def test_an_answer_that_is_no_score_is_refused(tmp_path, answer):
    score = load_score(written(tmp_path, f"def judge(picture, prompt):\n    return {answer}\n"))

    with pytest.raises(UsageError, match="--score"):
        score.mean(PICTURES, ("a",))


@pytest.mark.parametrize(
    "text", ["", "score.py", "score.py:", ":judge", "missing.py:judge", "score.txt:judge"]
)
def test_what_names_no_function_of_a_file_is_refused(text):
    with pytest.raises(UsageError, match="FILE:FUNCTION"):
        load_score(text)


def test_a_file_without_the_function_or_with_a_fault_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no function"):
        load_score(written(tmp_path, "x = 1\n"))
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        load_score(written(tmp_path, "1 / 0\n"))
