"""Progress on standard error: bars on a terminal, lines elsewhere, nothing where it is not wanted."""

from __future__ import annotations

import os
import threading
import time

import pytest

from qdx.cli import verbosity
from qdx.cli.pace import Pace
from qdx.cli.progress import progress_bars
from qdx.cli.progress_lines import SILENCE_SECONDS, Lines
from qdx.cli.ticker import DISPLAY, Ticker
from qdx.exporter.progress import SILENT
from tests.support.terminals import on_a_terminal


class Clock:
    """A clock that is set by hand, and the lines written by it."""

    def __init__(self):
        self.now = 100.0
        self.lines = []

    def __call__(self):
        return self.now

    def wait(self, lines, seconds):
        """Lets time pass, with a look at each second."""
        for _ in range(seconds):
            self.now += 1
            lines.tick()


@pytest.fixture
def clock():
    return Clock()


def make_lines(clock, **options):
    return Lines(clock=clock, write=clock.lines.append, **options)


def test_what_takes_seconds_is_not_mentioned(clock):
    lines = make_lines(clock)
    with lines.task("lowering", 5, unit="graphs") as task:
        for _ in range(5):
            clock.wait(lines, 5)
            task.advance()

    assert clock.lines == []


def test_what_takes_long_has_a_line_at_least_every_30_seconds_and_one_at_its_end(clock):
    lines = make_lines(clock)
    with lines.task("calibrating", 80, unit="calls") as task:
        for _ in range(23):
            clock.wait(lines, 11)
            task.advance()

    assert len(clock.lines) == 253 // 28 + 1
    assert clock.lines[0] == "calibrating: 2 of 80 calls, 28 s gone, about 14 min left"
    assert clock.lines[-1] == "calibrating: 23 of 80 calls in 4 min 13 s"


def test_lines_come_also_within_one_long_unit(clock):
    lines = make_lines(clock)
    with lines.task("dry run"):
        clock.wait(lines, 60)

    assert clock.lines == ["dry run: 28 s gone", "dry run: 56 s gone", "dry run: 1 min"]


def test_many_tasks_that_are_short_break_the_silence_too(clock):
    lines = make_lines(clock)
    for name in "abc":
        with lines.task(name):
            clock.wait(lines, 20)

    assert clock.lines == ["b: 8.0 s gone", "c: 16 s gone"]


def test_what_happens_between_tasks_is_mentioned_too(clock):
    lines = make_lines(clock)
    clock.wait(lines, 30)

    assert clock.lines == ["at work: 28 s gone"]


def test_of_nested_tasks_the_inner_one_speaks(clock):
    lines = make_lines(clock)
    with lines.task("verifying"), lines.task("comparing", 9):
        clock.wait(lines, 28)

    assert clock.lines == ["comparing: 0 of 9, 28 s gone"]


def test_an_announcement_is_said_and_ends_the_silence(clock):
    lines = make_lines(clock)
    with lines.task("x"):
        clock.wait(lines, 10)
        lines.say("calibrating takes about 18 min")
        clock.wait(lines, 18)

    assert clock.lines == ["calibrating takes about 18 min"]


def test_verbose_says_each_task_and_each_unit_with_its_seconds(clock):
    lines = make_lines(clock, verbose=True)
    with lines.task("calibrating", 2, unit="calls") as task:
        for seconds in (3, 2):
            clock.wait(lines, seconds)
            task.advance()

    assert clock.lines == [
        "calibrating: 1 of 2 calls, 3.0 s",
        "calibrating: 2 of 2 calls, 2.0 s",
        "calibrating: 2 of 2 calls in 5.0 s",
    ]


def test_a_task_ends_where_its_work_fails(clock):
    lines = make_lines(clock)

    def fail():
        with lines.task("x", 3):
            clock.now += 40
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    clock.wait(lines, 28)

    assert clock.lines == ["x: 0 of 3 in 40 s", "at work: 1 min 8 s gone"]


def test_the_longest_silence_with_a_look_each_second_is_below_30_seconds():
    assert SILENCE_SECONDS + 1 < 30


def test_time_left_is_that_of_the_mean_unit():
    pace = Pace("x", 10, "", 0.0)

    assert pace.seconds_left(5.0) is None
    pace.advance(2, 8.0)
    assert pace.seconds_left(8.0) == 32
    assert pace.seconds_left(11.0) == 29
    assert pace.seconds_left(99.0) == 28  # a unit that takes long does not end the rest
    pace.advance(8, 100.0)
    assert pace.seconds_left(100.0) is None


def test_time_left_is_what_the_caller_knows_where_it_says_so():
    pace = Pace("x", 10, "calls", 0.0)
    pace.advance(1, 10.0)
    pace.expect(30.0, 10.0)

    assert pace.seconds_left(25.0) == 15
    assert pace.seconds_left(50.0) == 0
    assert pace.line(15.0) == "x: 1 of 10 calls, 15 s gone, about 25 s left"
    pace.expect(float("nan"), 15.0)
    assert pace.seconds_left(15.0) is None


def test_a_count_without_a_total():
    pace = Pace("x", None, "", 0.0)

    assert pace.line(3.0) == "x: 3.0 s gone"
    pace.advance(4, 5.0)
    assert pace.line(6.0) == "x: 4 done, 6.0 s gone"
    assert pace.closing_line(7.0) == "x: 4 done in 7.0 s"


def test_silence_tells_nobody():
    with SILENT.task("x", 3, unit="calls") as task:
        task.advance()
        task.expect(3.0)
    SILENT.say("x")


def test_without_a_terminal_short_work_prints_nothing(capsys):
    verbosity.reset()
    with progress_bars() as progress, progress.task("x", 2) as task:
        task.advance()

    assert capsys.readouterr() == ("", "")


def test_no_thread_stays_behind():
    before = threading.active_count()
    with progress_bars():
        assert threading.active_count() == before + 1

    assert threading.active_count() == before


def test_the_thread_calls_while_the_work_holds_on():
    called = threading.Event()
    with Ticker(called.set, 0.01):
        assert called.wait(10)


def test_a_line_that_cannot_be_written_ends_the_lines_and_not_the_work():
    calls = []

    def fail():
        calls.append(1)
        raise OSError(28, "No space left on device")

    with Ticker(fail, 0.001) as ticker:
        ticker._thread.join(10)
        assert not ticker._thread.is_alive()

    assert calls == [1]


def test_a_fork_waits_for_the_line_that_is_being_written():
    events = []
    with DISPLAY:
        thread = threading.Thread(target=fork_and_tell, args=(events,))
        thread.start()
        time.sleep(0.05)
        events.append("line written")
    thread.join()

    assert events == ["line written", "forked"]


def fork_and_tell(events):
    child = os.fork()
    if child == 0:
        os._exit(0)
    events.append("forked")
    os.waitpid(child, 0)


BARS = """
import sys, time
from qdx.cli.progress import progress_bars
with progress_bars() as progress:
    progress.say("an estimate")
    with progress.task("calibrating [bold]", 4, unit="calls") as task:
        for _ in range(3):
            time.sleep(0.05)
            task.advance()
        task.expect(3723)
        time.sleep(0.4)
"""


def test_a_terminal_shows_bars_with_the_time_left():
    sent = on_a_terminal(BARS)

    assert "an estimate" in sent
    assert "calibrating [bold]" in sent
    assert "3/4" in sent
    assert "calls" in sent
    assert "1:02:0" in sent
    assert "\x1b[3" in sent  # colours


def test_no_colour_is_shown_where_none_is_wanted():
    sent = on_a_terminal(BARS, NO_COLOR="1")

    assert "3/4" in sent
    assert "\x1b[3" not in sent.replace("\x1b[3m", "")


def test_a_terminal_without_a_cursor_gets_lines():
    assert on_a_terminal(BARS, TERM="dumb") == "an estimate\r\n"
