"""Versions and states of packages, from what is installed and what qdx asks for."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from qdx.doctor.imports import Import
from qdx.doctor.packages import State, _package, requirements


def test_what_qdx_needs_and_what_its_runtimes_are():
    found = {one.name: extra for extra, one in requirements()}

    assert found["torch"] is None
    assert found["openvino"] == "openvino"
    assert found["coremltools"] == "coreml"
    assert found["tensorrt"] == "tensorrt"
    assert found["onnxruntime"] == "onnxruntime"
    assert not found.keys() & {"pytest", "sphinx", "qdx"}


@pytest.mark.parametrize(
    ("version", "fault", "state", "install"),
    [
        ("2.13.0+cpu", "", State.OK, 'pip install "torch>=2.10,<2.14"'),
        ("2.14.0", "", State.UNSUPPORTED, 'pip install "torch>=2.10,<2.14"'),
        ("2.9.1", "", State.UNSUPPORTED, 'pip install "torch>=2.10,<2.14"'),
        (
            "2.13.0",
            "OSError: x",
            State.BROKEN,
            'pip install --force-reinstall "torch>=2.10,<2.14"',
        ),
        (None, "", State.MISSING, 'pip install "torch>=2.10,<2.14"'),
    ],
)
def test_states(version, fault, state, install):
    imported = None if version is None else Import(fault)
    one = _package(None, Requirement("torch<2.14,>=2.10"), version, imported)

    assert (one.state, one.install, one.supported) == (state, install, ">=2.10,<2.14")
    assert one.is_lacking == (version is None)


def test_a_runtime_is_installed_by_its_extra():
    one = _package("openvino", Requirement("nncf>=3.4"), None, None)

    assert (one.install, one.is_lacking) == ('pip install "qdx[openvino]"', False)
