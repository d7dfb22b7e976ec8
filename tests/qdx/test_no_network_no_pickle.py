"""A whole export and run touch no network, no pickle, no program but their own, and write nowhere but their own places.

Artifacts are opened in a process of qdx's own, which a crash of the runtime may end. It is the one that may be started, and it
is watched like the command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.layers import ROOT

# Read by every Python that is started: everything that happens is seen from the first import on.
WATCH = r"""
import json, os, sys
sys.dont_write_bytecode = True
opener = [sys.executable, "-m", "qdx.compile.opening_worker"]
forbidden = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "pickle.find_class", "os.system",
             "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "urllib.Request")
allowed = tuple(os.path.realpath(path) + os.sep for path in json.loads(os.environ["ALLOWED"])) + ("/dev/null",)
seen = []
def hook(event, arguments):
    # urllib3 asks the kernel for IPv6 when it is imported, by binding a socket that nobody uses.
    probe = event == "socket.bind" and arguments[1] == ("::1", 0)
    own = event in ("subprocess.Popen", "os.posix_spawn") and list(arguments[1]) == opener
    if event in forbidden and not probe and not own:
        seen.append(f"{event} {arguments!r:.200}")
        raise RuntimeError(seen[-1])
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path, mode, flags = arguments
        writes = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND)
        place = os.path.abspath(os.fsdecode(path))
        # A file without a name is opened as the folder that it lies in.
        if writes and not (place + os.sep if os.path.isdir(place) else place).startswith(allowed):
            seen.append(f"writes {place}")
            raise RuntimeError(seen[-1])
sys.addaudithook(hook)
"""
WATCHED = r"""
import os, sys
from sitecustomize import seen
model, output, target, task = sys.argv[1:]
if task == "plant":
    import pickle, socket, subprocess
    from collections import OrderedDict
    data = pickle.dumps(OrderedDict)
    for attempt in (lambda: socket.socket().connect(("127.0.0.1", 9)), lambda: pickle.loads(data),
                    lambda: subprocess.run(["true"]), lambda: os.system("true"),
                    lambda: open(os.path.expanduser("~/planted"), "w")):
        try:
            attempt()
        except Exception:
            pass
    print("\n".join(seen))
    sys.exit(len(seen))
import torch
torch.set_num_threads(1)
from qdx.cli.main import run_command
call = ["--call", '{"num_inference_steps": 1}']
status = run_command(["export", model, "--target", target, "-o", output, *call])
if status == 0:
    status = run_command(["run", output, "-o", os.path.join(os.path.dirname(output), "picture.png"), *call])
print("\n".join(seen))
sys.exit(status if status else 100 * bool(seen))
"""


def watched(
    model: Path, place: Path, target: str, task: str = "work"
) -> subprocess.CompletedProcess[str]:
    home, temporary, out, cache = (place / name for name in ("home", "tmp", "out", "cache"))
    watch = place / "watch"
    for folder in (home, temporary, out, cache, watch):
        folder.mkdir()
    (watch / "sitecustomize.py").write_text(WATCH)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "QDX_CACHE": str(cache),
        "ALLOWED": json.dumps([str(out), str(temporary), str(cache)]),
        "PYTHONPATH": os.pathsep.join((str(watch), str(ROOT))),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", WATCHED, str(model), str(out / "bundle"), target, task],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize(
    "target", ["openvino", pytest.param("onnxruntime", marks=pytest.mark.slow)]
)
def test_a_whole_export_and_run(smallest, tmp_path, target):
    done = watched(smallest, tmp_path, target)

    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bundle", "picture.png"]
    # torch makes an empty folder for its compiler, which qdx never calls.
    assert [path for path in (tmp_path / "tmp").rglob("*") if not path.is_dir()] == []
    assert list((tmp_path / "home").iterdir()) == []


def test_the_watch_bites(smallest, tmp_path):
    done = watched(smallest, tmp_path, "onnxruntime", "plant")

    assert done.returncode == 5, done.stdout + done.stderr
    for event in (
        "socket.connect",
        "pickle.find_class",
        "subprocess.Popen",
        "os.system",
        "writes ",
    ):
        assert event in done.stdout


BLOCKED = """
import sys
from importlib.machinery import PathFinder
class Blocker:
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] == sys.argv[1] else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Blocker()
from qdx.cli.main import run_command
sys.exit(run_command(["export", sys.argv[2], "--target", sys.argv[1], "-o", sys.argv[3]]))
"""


@pytest.mark.parametrize(
    "target", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)]
)
def test_a_runtime_that_is_not_installed(smallest, tmp_path, target):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, target, str(smallest), str(tmp_path / "bundle")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 4, done.stderr
    assert f"pip install 'qdx[{target}]'" in done.stderr.replace('"', "'")
    assert list(tmp_path.iterdir()) == []
