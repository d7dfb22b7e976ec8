"""The first hour of a newcomer: every answer is as it must be, and an answer that is not is noticed."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest

from benchmarks import first_hour
from benchmarks.first_hour import LIMIT_S, STEPS, Answer, Step, faults_of, furnish, play, transcript
from qdx.cli.main import run_command

LIGHT = [*itertools.takewhile(lambda step: step.needs == "nothing", STEPS)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hour")
    furnish(folder)
    return folder


def test_there_are_twenty_five_commands_and_most_are_wrong():
    assert len(STEPS) >= 25
    assert sum(step.status != 0 for step in STEPS) >= 25


@pytest.mark.parametrize("step", LIGHT, ids=lambda step: step.line)
def test_an_answer_without_a_model_is_as_it_must_be(step, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "120")
    begun = time.process_time()
    status = run_command(step.words)
    answer = Answer(step, status, *capsys.readouterr(), time.process_time() - begun)

    assert faults_of(answer) == [], answer


@pytest.mark.slow  # exports, generates, and starts a process for each command
def test_the_whole_hour(tmp_path):
    furnish(tmp_path)
    answers = [*play(STEPS, tmp_path)]

    assert [(one.step.line, faults_of(one)) for one in answers if faults_of(one)] == []
    text = transcript(answers, tmp_path)
    assert str(tmp_path) not in text
    assert text.count("\n## `qdx ") == len(STEPS)


WRONG = Step(("exprot",), 2, "did you mean")
GOOD = Answer(WRONG, 2, "", "error: No such command\n\nhint: did you mean `qdx export`?\n", 0.4)
FAULTS = {
    "exit status 0, expected 2": {"status": 0},
    "exit status 70, expected 2": {"status": 70},
    "a traceback": {"err": "Traceback (most recent call last):\nerror: x\n\nhint: did you mean"},
    "no error that is called one": {"err": "no\n\nhint: did you mean"},
    "no next step": {"err": "error: did you mean `export`?\n"},
    "an error, and something on standard output": {"out": "wrote it\n"},
    "does not say 'did you mean'": {"err": "error: no\n\nhint: look elsewhere\n"},
    f"2.5 s, expected at most {LIMIT_S:g} s": {"time_s": 2.5},
}


@pytest.mark.parametrize(("fault", "change"), FAULTS.items(), ids=FAULTS)
def test_each_fault_is_noticed(fault, change):
    assert faults_of(GOOD) == []
    assert fault in faults_of(replace(GOOD, **change))


def test_time_counts_only_where_no_model_is_needed():
    heavy = replace(GOOD, step=replace(WRONG, needs="model"), time_s=100)

    assert faults_of(heavy) == []


def test_a_transcript_says_what_is_wrong(tmp_path):
    bad = replace(GOOD, status=70, out=f"{tmp_path}\n")
    text = transcript([GOOD, bad], tmp_path)

    assert "2 commands; 1 answers are not as they must be" in text
    assert "* **exit status 70, expected 2**" in text
    assert "PLACE" in text
    assert str(tmp_path) not in text


def test_a_line_is_shown_as_people_type_it():
    assert Step(("run", "b", "--prompt", "a cat"), 0, "").line == "qdx run b --prompt 'a cat'"
    assert Step(("export", "--call", "{'a': 1}"), 0, "").line == """qdx export --call "{'a': 1}\""""


def test_the_script_leaves_with_1_where_something_is_wrong(monkeypatch, capsys):
    monkeypatch.setattr(first_hour, "STEPS", (replace(WRONG, words=("targets",)),))
    monkeypatch.setattr("sys.argv", ["first_hour"])
    monkeypatch.setattr(first_hour, "furnish", lambda _: None)
    with pytest.raises(SystemExit) as left:
        first_hour.main()

    assert left.value.code == 1
    assert "exit status 0, expected 2" in capsys.readouterr().out
