"""A signal ends a command wherever it finds it, also where Python drops what its handler raises; cleaning up goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from qdx.cli.main import run_command
from tests.support.standing_in import verify_script

# Hit at once, and would work for a minute.
HIT = """
import os, weakref
NUMBER = int(sys.argv[1])

def hit(*_given):
    os.kill(os.getpid(), NUMBER)
    time.sleep(0)  # here at the latest its handler runs
"""
IN_A_DESTRUCTOR = """
class Freed:
    __del__ = hit
def work():
    Freed()
    time.sleep(60)
"""
IN_A_CALLBACK = """
class Freed:
    pass
def work():
    freed = Freed()
    reference = weakref.ref(freed, hit)
    del freed
    time.sleep(60)
"""
SWALLOWED = """
def work():
    try:
        hit()
    except BaseException:
        pass
    time.sleep(60)
"""
SWALLOWED_AGAIN_AND_AGAIN = """
def work():
    began = time.monotonic()
    while time.monotonic() < began + 0.35:
        try:
            hit() if time.monotonic() < began + 0.1 else time.sleep(1)
        except BaseException:
            pass
    time.sleep(60)
"""
ANOTHER_ERROR_IN_ITS_PLACE = """
def work():
    try:
        hit()
    finally:
        raise RuntimeError("pop from an empty stack")
"""
ANOTHER_ERROR_THAT_IS_HANDLED = """
def work():
    try:
        try:
            hit()
        finally:
            raise RuntimeError("pop from an empty stack")
    except RuntimeError:
        sys.exit(0)
"""
AGAIN_WHILE_CLEANING_UP = """
def work():
    try:
        hit()
    finally:
        hit()
        time.sleep(0.5)
        print("cleaner", flush=True)
"""


def end(body: str, number: int) -> tuple[int, str, str]:
    """Runs a command that is hit; returns its status, output and words."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", verify_script(HIT + body), str(int(number))],
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert time.monotonic() - began < 30
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "body",
    [
        IN_A_DESTRUCTOR,
        pytest.param(IN_A_CALLBACK, marks=pytest.mark.slow),  # an interrupt comes there below
        pytest.param(SWALLOWED, marks=pytest.mark.slow),
        SWALLOWED_AGAIN_AND_AGAIN,
        pytest.param(ANOTHER_ERROR_IN_ITS_PLACE, marks=pytest.mark.slow),
        ANOTHER_ERROR_THAT_IS_HANDLED,
    ],
    ids=["destructor", "callback", "swallowed", "swallowed again", "masked", "masked and handled"],
)
def test_a_signal_ends_the_command_wherever_it_arrives(facades, body):
    assert end(body, signal.SIGTERM) == (143, "clean\n", "terminated\n")


def test_an_interrupt_does_too(facades):
    assert end(IN_A_CALLBACK, signal.SIGINT) == (130, "clean\n", "interrupted\n")


def test_cleaning_up_is_not_interrupted_by_a_second_signal(facades):
    assert end(AGAIN_WHILE_CLEANING_UP, signal.SIGTERM) == (
        143,
        "cleaner\nclean\n",
        "terminated\n",
    )


def test_a_command_leaves_the_timer_of_whoever_calls_it_alone():
    before = signal.getitimer(signal.ITIMER_REAL)
    handler = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1000)
        assert run_command(["--version"]) == 0
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, handler)
