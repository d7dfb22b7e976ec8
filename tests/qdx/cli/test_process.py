"""The process: signals, closed pipes, and the entry point."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.standing_in import verify_script

# Works for a minute.
SLOW = verify_script("""
def work():
    print("ready", flush=True)
    time.sleep(60)
""")


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        (signal.SIGINT, 130, "interrupted\n"),
        # By default, commands are ended with this one wherever it arrives.
        pytest.param(signal.SIGTERM, 143, "terminated\n", marks=pytest.mark.slow),
    ],
)
def test_a_signal_unwinds_and_leaves_its_status(facades, number, status, words):
    with subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)

    assert (status, "clean\n", words) == (process.returncode, out, err)
    assert time.monotonic() - began < 5


def test_a_reader_that_goes_away_is_no_failure_of_ours():
    code = "import sys; from qdx.cli.main import main; sys.argv = ['qdx', 'plan', 'schema']; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        err = process.stderr.read()

    assert err == ""
    assert process.returncode == 141


@pytest.mark.parametrize("runtime", [None, "openvino"])
def test_the_process_ends_without_a_last_search_for_cycles(runtime):
    """Among all that PyTorch makes it takes more than a second; files and folders of work are put away all the same.

    Where a runtime was there, its models and threads end as they are used to.
    """
    code = (
        f"runtime = {runtime!r}"
        """
import atexit, gc, sys, tempfile
from qdx.cli.main import main
folder = tempfile.TemporaryDirectory()
atexit.register(lambda: print(folder.name, len(gc.get_objects()), file=sys.stderr))
sys.argv = ["qdx", "plan", "schema"]
sys.modules |= {} if runtime is None else {runtime: sys}
main()
"""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    name, looked_at = done.stderr.split()
    assert (int(looked_at) < 1000) == (runtime is None)
    assert not Path(name).exists()


def test_the_installed_command_is_this_one():
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="qdx")

    assert script.value == "qdx.cli.main:main"
