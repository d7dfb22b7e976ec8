"""The command, interrupted, terminated and killed: it goes on where it was, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from qdx.cli.main import main
from qdx.exporter.files import is_leftover
from tests.support.child_commands import start, wait
from tests.support.quantizing import CALL_OPTION, plan, run_command, write_plan
from tests.support.waiting import until

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
    pytest.mark.slow,
]
WORKERS = "2"


def command(model: Path, path: Path, output: Path) -> tuple[str, ...]:
    return ("calibrate", str(model), "--plan", str(path), "-o", str(output), "--force",
            "--workers", WORKERS, *CALL_OPTION)  # fmt: skip


@pytest.fixture
def big_plan(tmp_path):
    """Six samples of six steps, half of them observed, in two passes."""
    value = plan(smoothing={"alpha": 0.5})
    value["calibration"] = {"samples": 6, "steps": 6, "timestep_groups": 3, "observed": 0.5}
    return write_plan(tmp_path, value)


def begin(arguments: tuple[str, ...], words: Path, cache: Path) -> int:
    """The command in a fork, as a process group of its own; statistics are kept after every call."""

    def body():
        os.setpgid(0, 0)
        os.environ["QDX_CACHE"] = str(cache)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from qdx.calibration import sample

        sample._KEEP_EVERY_S = sample._KEEP_RATIO = 0.0
        with words.open("a") as stream, contextlib.redirect_stderr(stream):
            sys.argv = ["qdx", *arguments]
            try:
                main()
            finally:
                stream.flush()

    return start(body)


def children_of(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def group_is_gone(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False


def hit(child: int, how: str) -> None:
    number = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM}.get(how, signal.SIGKILL)
    workers = children_of(child) if how == "kill a worker" else ()
    with contextlib.suppress(ProcessLookupError):
        os.kill(next(filter(holds, workers), child), number)


def holds(worker: int) -> bool:
    """Stops a process; False where it has ended, though its parent may not know of it yet."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(worker, signal.SIGSTOP)
        while (
            state := Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0]
        ) not in "TZX":
            time.sleep(0.001)
        return state == "T"
    return False


EXPECTED = {
    "interrupt": {130},
    "terminate": {143},
    "kill": {-signal.SIGKILL},
    "kill a worker": {
        5,
        -signal.SIGKILL,
    },  # between two workers there is none: then the command itself
}


def has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def kept_files(cache: Path) -> int:
    return sum(1 for path in cache.rglob("sample-*/*") if not is_leftover(path.name))


@pytest.mark.parametrize("seed", [1])
def test_ended_at_ten_random_moments_it_goes_on_and_ends_with_the_same_bits(
    smallest, big_plan, tmp_path, seed
):
    torch.set_num_threads(1)
    whole = tmp_path / "whole"
    assert run_command(*command(smallest, big_plan, whole), "--no-cache").status == 0
    output, words, cache = tmp_path / "ranges", tmp_path / "words", tmp_path / "cache"
    generator = random.Random(seed)
    ways = ["interrupt", "terminate", "kill", "kill a worker"] * 3
    kept = 0
    for how in ways[:10]:
        child = begin(command(smallest, big_plan, output), words, cache)
        goal = kept + generator.randrange(1, 6)
        until(lambda goal=goal, child=child: kept_files(cache) >= goal or has_ended(child), 120)
        time.sleep(generator.uniform(0, 0.02))
        hit(child, how)
        assert wait(child) in EXPECTED[how], words.read_text()
        until(lambda child=child: group_is_gone(child), 10)
        assert not output.exists()
        assert not list(tmp_path.glob(".*"))
        assert (
            kept_files(cache) >= kept
        )  # nothing that was done is lost, but statistics that newer ones replace
        kept = kept_files(cache)
    child = begin(command(smallest, big_plan, output), words, cache)
    assert wait(child) == 0, words.read_text()
    assert output.read_bytes() == whole.read_bytes()
    assert "damaged" not in words.read_text()
    assert "defect" not in words.read_text()


def test_a_second_command_is_refused_with_the_first_ones_number_and_the_first_goes_on(
    smallest, big_plan, tmp_path
):
    cache = tmp_path / "cache"
    first = begin(command(smallest, big_plan, tmp_path / "one"), tmp_path / "first", cache)
    until(lambda: list(cache.rglob("sample-*")), 120)
    os.kill(first, signal.SIGSTOP)  # so that it is not done before the second one asks
    try:
        second = begin(command(smallest, big_plan, tmp_path / "two"), tmp_path / "second", cache)
        assert wait(second) == 2
    finally:
        os.kill(first, signal.SIGCONT)
    said = (tmp_path / "second").read_text()
    assert f"process {first} works on the same calibration already" in said
    assert said.count("error: ") == 1
    assert wait(first) == 0
    assert (tmp_path / "one").exists()
    assert not (tmp_path / "two").exists()
