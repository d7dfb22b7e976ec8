"""Engines that TensorRT-RTX compiles here, without a device: what is written, what is refused, and what is left where it fails."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from qdx.backends.registry import find_backend
from qdx.backends.tensorrt.engine import produce_ahead as producing
from qdx.backends.tensorrt.engine.produce_ahead import BUILDER, builder_version, produce_ahead
from qdx.backends.tensorrt.engine.record import (
    check_engine,
    check_runs_here,
    read_layers,
    read_record,
)
from qdx.backends.tensorrt.flavour import RTX
from qdx.exporter.errors import InvalidBundle, RuntimeMissing, StorageError, TargetRefusal
from tests.support.layers import ROOT
from tests.support.rtx_models import planted

pytest.importorskip("tensorrt_rtx")

BUILT = {"model.engine", "engine.json", "engine.layers.txt"}


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_an_engine_is_written_with_its_record_and_the_log_of_its_layers(tmp_path):
    folder = planted(tmp_path / "part")
    before = names(folder)
    made = produce_ahead(folder)

    assert names(folder) - before == BUILT
    record = read_record(folder)
    engine = (folder / "model.engine").read_bytes()
    assert (record.size_bytes, record.sha256) == (len(engine), hashlib.sha256(engine).hexdigest())
    assert record == made.record.model_copy(update={"build_s": 0.0})
    assert made.record.build_s > 0
    assert (record.tensorrt, RTX.supported.lowest) == (builder_version(RTX)[0], (1, 7))
    assert set(record.sources) == before
    assert record.facts() == {
        "tensorrt-rtx": record.tensorrt,
        "compute_capability": "8.9",
        "size_bytes": len(engine),
    }
    layers = read_layers(folder, record)
    assert "Total Weights Memory: " in layers
    assert "\nLayers:\nName: " in layers
    assert "blocks.0.proj/MatMul" in layers
    assert str(tmp_path) not in layers
    check_engine(folder, record)


@pytest.mark.parametrize("name", ["model.engine", "model.onnx", "model.onnx_data", "build.json"])
def test_a_changed_file_is_not_that_of_the_engine(tmp_path, name):
    folder = planted(tmp_path / "part")
    produce_ahead(folder)
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(InvalidBundle, match=f"{name}`: not (what|the engine)") as refused:
        check_engine(folder, read_record(folder))
    assert "qdx build --force" in refused.value.hint


def test_a_changed_log_is_refused(tmp_path):
    folder = planted(tmp_path / "part")
    produce_ahead(folder)
    path = folder / "engine.layers.txt"
    path.write_text(path.read_text().replace("Half", "Int8", 1))

    with pytest.raises(InvalidBundle, match=r"engine\.layers\.txt`: not the log"):
        read_layers(folder, read_record(folder))


def test_processes_and_folders_leave_no_trace_in_an_engine(tmp_path):
    """The same process twice, and another one from another folder with another environment."""
    folders = [planted(tmp_path / name / "part", weight="int8") for name in ("a", "b/c d", "e")]
    produce_ahead(folders[0])
    produce_ahead(folders[1])
    script = "import sys; from pathlib import Path; from qdx.backends.tensorrt.engine.produce_ahead import produce_ahead; produce_ahead(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, str(folders[2])], check=True, cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "C"})  # fmt: skip

    for name in sorted(BUILT):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1, name


REFUSED = {
    "8-bit floats on Ampere": (
        {"weight": "fp8", "compute_capabilities": ("8.6",)},
        "part: blocks.0.proj (node blocks.0.proj/dequantized)",
        "needs fp8_e4m3, which sm86 have not",
        "export for rtx-ada or rtx-blackwell, whose devices have it",
    ),
    "4-bit weights on Turing": (
        {"weight": "int4", "compute_capabilities": ("7.5",)},
        "part: blocks.0.proj (node blocks.0.proj/dequantized)",
        "needs int4, which sm75 have not",
        "export for rtx-ada or rtx-ampere or rtx-blackwell or tensorrt-rtx, whose devices have it",
    ),
    "bfloat16 on Turing": (
        {"weight": "bfloat16", "compute_capabilities": ("7.5",)},
        "part: blocks.0.proj (node blocks.0.proj/MatMul)",
        "needs b16, which sm75 have not",
        "export for rtx-ada or rtx-ampere",
    ),
    "float32 products on Turing": (
        {"weight": "float32", "compute_capabilities": ("7.5",)},
        "part: blocks.0.proj (node blocks.0.proj/MatMul)",
        "FP32 GEMM is not supported",
        "another target",
    ),
    "a zero point": (
        {"weight": "int8", "zero": 3},
        "part: blocks.0.proj (node blocks.0.proj/dequantized)",
        "INVALID_NODE",
        "`qdx inspect --lint`",
    ),
    "an operator that there is not": (
        {"operator": "Hardmaximum"},
        "part: node blocks.0.act/Last",
        "Hardmaximum",
        "`qdx inspect --lint`",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_our_operation_and_the_next_step(tmp_path, case):
    faults, site, reason, hint = REFUSED[case]
    folder = planted(tmp_path / "part", **faults)
    before = names(folder)

    with pytest.raises(TargetRefusal) as refused:
        produce_ahead(folder)

    assert site in [one.site for one in refused.value.refusals]
    assert reason in refused.value.refusals[0].reason
    assert hint in refused.value.hint
    assert refused.value.message.startswith("`part`: ")
    assert "TensorRT-RTX" in refused.value.message
    assert names(folder) == before


def test_what_one_generation_refuses_another_compiles(tmp_path):
    for number, faults in enumerate(({"weight": "fp8"}, {"weight": "int4"}, {"weight": "bfloat16"}, {"weight": "float32"})):  # fmt: skip
        produce_ahead(planted(tmp_path / str(number), **faults))


@pytest.fixture
def worker(monkeypatch):
    """Puts a script in the place of the process that builds."""

    def put(script):
        BUILDER.close()
        monkeypatch.setattr(BUILDER, "command", (sys.executable, "-c", script))

    yield put
    BUILDER.close()


@pytest.fixture
def interruptible():
    """A run that was started in the background inherits that interrupts are ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


SERVED = "from qdx.backends.tensorrt.engine.ahead_worker import main; main()"


@pytest.mark.parametrize("asked", [False, True], ids=["fresh", "asked before"])
def test_a_crash_of_the_builder_is_a_refusal_and_leaves_nothing(tmp_path, worker, asked):
    """A process that was asked before, as each is in an export, leaves a half-written engine to the one after it."""
    folder = planted(tmp_path / "part")
    before = names(folder)
    worker(
        "import os\n"
        "from qdx.backends.tensorrt.engine import ahead\n"
        "ahead._write_layers = lambda *_: os.kill(os.getpid(), 11)\n" + SERVED
    )
    if asked:
        builder_version(RTX)

    with pytest.raises(TargetRefusal, match=r"`part`: TensorRT-RTX ended by signal 11"):
        produce_ahead(folder)
    assert names(folder) == before


def test_what_a_builder_that_ended_has_left_is_no_obstacle_to_the_next(tmp_path, worker):
    folder = planted(tmp_path / "part")
    worker(
        "import os\n"
        "from pathlib import Path\n"
        "from qdx.backends.tensorrt.engine import ahead\n"
        f"if not Path({str(tmp_path / 'ended')!r}).exists():\n"
        "    def end(*_):\n"
        f"        Path({str(tmp_path / 'ended')!r}).touch()\n"
        "        os.kill(os.getpid(), 9)\n"
        "    ahead._write_layers = end\n" + SERVED
    )
    builder_version(RTX)
    produce_ahead(folder)

    assert (tmp_path / "ended").exists()
    check_engine(folder, read_record(folder))


def test_a_builder_that_is_killed_has_most_likely_had_no_memory(tmp_path, worker):
    worker("import os; input(); os.kill(os.getpid(), 9)")

    with pytest.raises(TargetRefusal, match="ended by signal 9") as refused:
        produce_ahead(planted(tmp_path / "part"))
    assert "memory ran out" in refused.value.hint


def test_a_full_disk_is_a_storage_failure_and_leaves_nothing(tmp_path, worker):
    folder = planted(tmp_path / "part")
    before = names(folder)
    worker(
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n" + SERVED
    )

    with pytest.raises(StorageError, match=r"model\.engine`: cannot be written, File too large"):
        produce_ahead(folder)
    assert names(folder) == before


def test_an_interruption_ends_the_builder_and_leaves_nothing(tmp_path, worker, interruptible):
    folder = planted(tmp_path / "part")
    before = names(folder)
    worker(
        "import time\n"
        "from qdx.backends.tensorrt.engine import ahead\n"
        "ahead._write_layers = lambda *_: time.sleep(600)\n" + SERVED
    )

    def interrupt():
        while not (folder / "model.engine").exists() or not (folder / "model.engine").stat().st_size:  # fmt: skip
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        produce_ahead(folder)
    assert BUILDER.process is not None
    assert BUILDER.process._process.wait(10) == -9
    assert names(folder) == before


def test_the_builder_ends_with_the_process_that_asked_it(tmp_path):
    """Killed, it cannot tell anybody: the end of the input does."""
    folder = planted(tmp_path / "part")
    script = f"""
import os, sys, threading, time
from pathlib import Path
from qdx.backends.tensorrt.engine.produce_ahead import BUILDER, produce_ahead
worker = "import time; from qdx.backends.tensorrt.engine import ahead; ahead._write_layers = lambda *_: time.sleep(600); " + {SERVED!r}
BUILDER.command = (sys.executable, "-c", worker)
def die():
    while not Path({str(folder / "model.engine")!r}).exists():
        time.sleep(0.05)
    print(BUILDER.process._process.pid, flush=True)
    os.kill(os.getpid(), 9)
threading.Thread(target=die, daemon=True).start()
produce_ahead(Path({str(folder)!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)  # fmt: skip

    assert done.returncode == -9, done.stderr
    deadline = time.monotonic() + 60
    process = Path(f"/proc/{int(done.stdout)}")
    while process.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not process.exists()


def test_this_process_does_not_load_the_builder(tmp_path):
    script = f"""
import sys
from pathlib import Path
from qdx.backends.tensorrt.engine.produce_ahead import produce_ahead
produce_ahead(Path({str(planted(tmp_path / "part"))!r}))
print(sorted(name for name in sys.modules if name.startswith("tensorrt")))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)  # fmt: skip

    assert done.stdout == "[]\n"


def test_a_version_that_the_recipe_is_not_for_is_refused(tmp_path):
    from qdx.exporter.errors import UsageError

    with pytest.raises(UsageError, match=r"TensorRT-RTX .* is installed, the recipe is for >=1\.9"):
        produce_ahead(planted(tmp_path / "part", versions=">=1.9,<2"))


def test_a_recipe_of_the_other_flavour_is_not_built(tmp_path):
    folder = planted(tmp_path / "part")

    with pytest.raises(InvalidBundle, match="its recipe is for TensorRT-RTX, the bundle's target"):
        find_backend("tensorrt").check_build([folder], 0)


def test_an_engine_behind_which_much_memory_was_taken_ends_its_builder(tmp_path, monkeypatch):
    monkeypatch.setattr(producing, "_LARGE_BYTES", 1)
    produce_ahead(planted(tmp_path / "part"))

    assert BUILDER.process is None


@pytest.mark.parametrize(
    ("capabilities", "fits", "not_fits"),
    [(("8.9",), [(8, 9)], [(8, 6), (12, 0)]), ((), [(8, 0), (12, 0)], [(7, 5)])],
)
def test_an_engine_runs_on_the_devices_that_it_is_for_with_the_very_version(
    tmp_path, capabilities, fits, not_fits
):
    folder = planted(tmp_path / "part", compute_capabilities=capabilities)
    produce_ahead(folder)
    record = read_record(folder)

    for one in fits:
        check_runs_here(record, record.tensorrt, one)
    for one in not_fits:
        with pytest.raises(RuntimeMissing, match="built for compute capability 8") as other:
            check_runs_here(record, record.tensorrt, one)
        assert other.value.hint.startswith("export for a target")
    with pytest.raises(
        RuntimeMissing, match=r"built for TensorRT-RTX .*, here is 1\.7\.0\.1"
    ) as old:
        check_runs_here(record, "1.7.0.1", fits[0])
    assert old.value.hint.startswith("build the engine again here")
