"""Options of running an engine: those of a flavour, with the values that there are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qdx.backends.tensorrt.engine.options import RunOptions, run_options
from qdx.backends.tensorrt.flavour import ENTERPRISE, RTX
from qdx.exporter.errors import UsageError


def test_options_of_running():
    assert run_options({}) == RunOptions()
    given = {"device": "1", "cuda_graph": "off", "weight_streaming_budget_bytes": "1000"}
    assert run_options(given) == replace(RunOptions(), device=1, cuda_graph=False, weight_streaming_budget_bytes=1000)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fp16": "on"}, "`fp16`: no such option of running an engine"),
        ({"cuda_graph": "yes"}, "`cuda_graph`: got `yes`, expected on or off"),
        ({"device": "-1"}, "`device`: got `-1`, expected a number from 0 on"),
    ],
)
def test_options_that_do_not_exist(options, message):
    with pytest.raises(UsageError, match=message):
        run_options(options)


def test_tensorrt_rtx_has_an_option_more():
    assert run_options({"kernel_specialization": "lazy"}, RTX).kernel_specialization == "lazy"
    assert run_options({}, RTX).kernel_specialization == "eager"
    with pytest.raises(UsageError, match="got `soon`, expected one of eager, lazy, none"):
        run_options({"kernel_specialization": "soon"}, RTX)
    with pytest.raises(UsageError, match=r"no such option of running an engine of TensorRT\n"):
        run_options({"kernel_specialization": "lazy"}, ENTERPRISE)
