"""Processes of our own: what they answer, how their errors and their ends arrive."""

from __future__ import annotations

import sys

import pytest

from qdx.exporter.child import Child, ChildEnded, KeptChild
from qdx.exporter.errors import Refusal, StorageError, TargetRefusal
from qdx.exporter.messages import error_message, error_of

SERVE = """
import os
from qdx.exporter.child import serve
from qdx.exporter.errors import Refusal, StorageError, TargetRefusal
def answer(request):
    print("said aloud")
    if request["do"] == "refuse":
        raise TargetRefusal("no", refusals=(Refusal("unet: to_q", "why", "so"), Refusal("vae", "other")), hint="next")
    if request["do"] == "fail":
        raise StorageError("full")
    if request["do"] == "end":
        os.write(2, b"last words\\n")
        os.kill(os.getpid(), 11)
    return {"pid": os.getpid()}
serve(answer)
"""


@pytest.fixture
def child():
    made = KeptChild("none")
    made.command = (sys.executable, "-c", SERVE)
    yield made
    made.close()


def test_one_process_answers_several_messages_and_its_words_are_no_answers(child):
    assert child.ask({"do": "tell"}) == child.ask({"do": "tell"})


def test_errors_arrive_as_they_were_raised_with_every_refusal(child):
    with pytest.raises(TargetRefusal, match="no") as refused:
        child.ask({"do": "refuse"})
    with pytest.raises(StorageError, match="full"):
        child.ask({"do": "fail"})

    assert refused.value.hint == "next"
    assert refused.value.refusals == (Refusal("unet: to_q", "why", "so"), Refusal("vae", "other"))


def test_an_end_is_told_with_the_last_words_and_another_process_goes_on(child):
    first = child.ask({"do": "tell"})
    with pytest.raises(ChildEnded, match=r"ended by signal 11 \(last words\)") as ended:
        child.ask({"do": "end"})

    assert ended.value.signal == 11
    assert child.ask({"do": "tell"}) != first


def test_a_closed_process_is_gone(child):
    child.ask({"do": "tell"})
    process = child.process
    child.close()

    assert isinstance(process, Child)
    assert child.process is None
    assert not process.is_alive


def test_a_refusal_without_places_reads_as_it_was_written():
    error = error_of(error_message(TargetRefusal("no")))

    assert isinstance(error, TargetRefusal)
    assert (error.message, error.refusals, error.hint) == ("no", (), None)
