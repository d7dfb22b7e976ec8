"""A signal in the middle of a verification: no part of a report is left, nor a file in the folder for temporary ones."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile

import pytest
import torch

from qdx.cli.main import main, run_command
from qdx.verification.measure import components
from qdx.verification.measure.reference_runs import Reference
from qdx.verification.report import folder as report_folder
from qdx.verification.report.names import JUNIT, PAGE, REPORT, SIDES, image_name
from tests.support.quantizing import WEIGHTS, export, plan

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

FILES_OF_ONE_RUN = {PAGE, JUNIT, REPORT, *(image_name(side, 0) for side in SIDES)}


@pytest.fixture(scope="module")
def arguments(smallest, tmp_path_factory):
    """Of one verification; running it loads what the forks share."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("interrupted")
    export(smallest, folder, plan(WEIGHTS))
    found = ["verify", str(folder / "onnxruntime"), "--model", str(smallest), "--steps", "2"]
    assert run_command([*found, "--report", str(folder / "report"), "--quiet"]) == 0
    assert {path.name for path in (folder / "report").iterdir()} == FILES_OF_ONE_RUN
    return found


def hit(number):
    os.kill(os.getpid(), number)


def in_the_reference(number):
    record = Reference._record

    def hitting(*given):
        hit(number)
        return record(*given)

    Reference._record = hitting


def between_calls(number):
    measured = components._measured

    def hitting(*given):
        hit(number)
        return measured(*given)

    components._measured = hitting


def while_writing(number):
    replace, count = report_folder.replace_file, iter(range(100))

    def hitting(*given):
        replace(*given)
        if (
            next(count) == 3
        ):  # pictures and page are complete, the cases for continuous integration are not
            hit(number)

    report_folder.replace_file = hitting


@pytest.mark.parametrize(
    ("moment", "number", "status"),
    [
        pytest.param(in_the_reference, signal.SIGINT, 130),
        pytest.param(in_the_reference, signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(between_calls, signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(between_calls, signal.SIGTERM, 143),
        pytest.param(while_writing, signal.SIGINT, 130),
        pytest.param(while_writing, signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_a_signal(arguments, tmp_path, number, status, moment):
    report, temporary = tmp_path / "report", tmp_path / "temporary"
    temporary.mkdir()
    gc.collect()  # what is left in cycles would hang a fork that frees it: its threads are not there
    child = os.fork()
    if child == 0:
        left = 99
        gc.freeze()
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            tempfile.tempdir = str(temporary)
            moment(number)
            sys.argv = ["qdx", *arguments, "--report", str(report), "--quiet"]
            main()
        except SystemExit as leaving:
            left = leaving.code
        finally:
            os._exit(left)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status
    assert list(report.iterdir()) == []
    assert list(temporary.iterdir()) == []
