"""Workers: what they tell arrives, so does what goes wrong, and none of them outlives the one that started it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from qdx.calibration.workers import run_samples
from qdx.exporter.errors import InternalError, InvalidModel, QdxError, StorageError
from tests.support.child_commands import start, wait
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def ignore(message):
    del message


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [1, 2, 4, 9])
def test_every_sample_runs_once_and_all_that_it_tells_arrives_in_its_order(workers):
    told = []

    def run(sample, tell):
        for step in range(50):
            tell({"sample": sample, "step": step, "text": "a\nb ✓" * 50})

    run_samples(range(5), run, workers=workers, tell=told.append)
    assert len(told) == 250
    for sample in range(5):
        assert [one["step"] for one in told if one["sample"] == sample] == list(range(50))
    assert {one["text"] for one in told} == {"a\nb ✓" * 50}


def test_no_more_samples_run_at_a_time_than_there_are_workers(tmp_path):
    most = []

    def run(sample, tell):
        (tmp_path / str(sample)).touch()
        tell({"running": len(list(tmp_path.iterdir()))})
        time.sleep(0.05)
        (tmp_path / str(sample)).unlink()

    run_samples(range(6), run, workers=2, tell=most.append)
    assert max(one["running"] for one in most) <= 2


@pytest.mark.parametrize(
    ("raised", "kind", "words", "status"),
    [
        (InvalidModel("`unet`: NaN at timestep 7", hint="look\nthere ✓"), InvalidModel, "NaN at timestep 7", 2),
        (StorageError("`\udcff\0`: disk full"), QdxError, r"`\udcff\x00`: disk full", 5),
        (MemoryError(), StorageError, "memory ran out", 5),
        (KeyError("conv_in"), InternalError, "KeyError: 'conv_in'", 70),
        (SystemExit(0), InternalError, "SystemExit", 70),
    ],
)  # fmt: skip
def test_what_a_worker_raises_arrives_as_it_is(raised, kind, words, status):
    def run(sample, tell):
        tell({"sample": sample})
        if sample == 1:
            raise raised
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(kind) as found:
        run_samples(range(3), run, workers=3, tell=ignore)
    assert time.monotonic() - began < 30  # the others were ended
    assert words in found.value.message
    assert found.value.exit_code == status
    if isinstance(raised, QdxError):
        assert type(found.value) is type(raised)
        assert found.value.hint == raised.hint


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (signal.SIGKILL, StorageError, "was killed"),
        (signal.SIGTERM, StorageError, "ended from outside"),
        (signal.SIGUSR1, InternalError, f"ended by signal {signal.SIGUSR1}"),
    ],
)
def test_a_worker_that_is_killed_is_named_and_the_others_end(number, kind, words):
    children = {}

    def run(sample, tell):
        tell({"sample": sample, "pid": os.getpid()})
        time.sleep(60)

    def told(message):
        children[message["sample"]] = message["pid"]
        if len(children) == 2:
            os.kill(children[1], number)

    with pytest.raises(kind, match="sample 2") as found:
        run_samples(range(2), run, workers=2, tell=told)
    assert words in found.value.message
    assert not any(map(alive, children.values()))


def test_what_the_one_that_listens_raises_ends_all_of_them():
    children = []

    def run(_sample, tell):
        tell({"pid": os.getpid()})
        time.sleep(60)

    def told(message):
        children.append(message["pid"])
        if len(children) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_samples(range(3), run, workers=3, tell=told)
    assert not any(map(alive, children))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_when_their_parent_is_killed_even_in_the_midst_of_a_call(tmp_path):
    def run(_sample, tell):
        (tmp_path / str(os.getpid())).touch()
        tell({})
        time.sleep(60)  # one long call, in which nothing is told

    child = start(lambda: run_samples(range(3), run, workers=3, tell=ignore))
    until(lambda: len(list(tmp_path.iterdir())) == 3)
    os.kill(child, signal.SIGKILL)
    wait(child)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    until(lambda: not any(map(alive, pids)), 10)


def test_an_interrupt_of_the_whole_group_is_an_interrupt_and_no_fault_of_a_worker(tmp_path):
    def run(_sample, tell):
        (tmp_path / str(os.getpid())).touch()
        tell({})
        time.sleep(60)

    def body():
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            run_samples(range(2), run, workers=2, tell=ignore)
        except KeyboardInterrupt:
            return 130
        return 1

    child = start(body)
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    os.killpg(child, signal.SIGINT)
    assert wait(child) == 130
    assert not any(alive(int(path.name)) for path in tmp_path.iterdir())


def test_interrupts_while_workers_start_leave_none_and_run_nothing_of_the_parent_in_a_child(
    tmp_path,
):
    """Nothing between the fork and the child's own life may unwind the parent's frames."""

    def body():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        own = os.getpid()
        try:
            run_samples(range(60), lambda _sample, _tell: None, workers=4, tell=ignore)
        except KeyboardInterrupt:
            (tmp_path / str(os.getpid())).touch()
            return 130 if os.getpid() == own else 1
        finally:
            (tmp_path / f"left-{os.getpid()}").touch()
        return 0

    for delay in range(3):
        child = start(body)
        time.sleep(0.02 + 0.02 * delay)
        os.kill(child, signal.SIGINT)
        assert wait(child) in {130, 0, -signal.SIGINT}
        assert {path.name.removeprefix("left-") for path in tmp_path.iterdir()} <= {str(child)}
        for path in tmp_path.iterdir():
            path.unlink()
