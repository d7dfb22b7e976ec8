from __future__ import annotations

import copy

import pytest

from qdx.bundle.reader import read_bundle
from qdx.bundle.target_options import checked_options
from qdx.bundle.writer import BundleWriter
from qdx.exporter.errors import InvalidBundle
from qdx.runtime.pipeline import open_methods
from qdx.targets import list_targets, load_target
from tests.support.bundles import MANIFEST, fill


def with_target(**changes):
    manifest = copy.deepcopy(MANIFEST)
    manifest["target"] |= changes
    return manifest


def write(folder, **changes):
    with BundleWriter(folder) as writer:
        fill(writer.staging)
        writer.commit(with_target(**changes))
    return read_bundle(folder)


@pytest.mark.parametrize("name", list_targets())
def test_what_a_target_pins_is_accepted(tmp_path, name):
    profile = load_target(name)
    options = dict(profile.options)
    bundle = write(tmp_path / "bundle", name=name, runtime=profile.runtime, options=options)

    assert checked_options(bundle.manifest) == options


REFUSED = {
    "cache": ({"name": "openvino", "runtime": "openvino", "options": {"CACHE_DIR": "x"}}, "CACHE_DIR"),
    "library": ({"options": {"session.custom_ops_library": "x.so"}}, "custom_ops_library"),
    "profile": ({"options": {"session.save_model": "x"}}, "save_model"),
    "option of another target": ({"options": {"EXECUTION_MODE_HINT": "ACCURACY"}}, "pins"),
    "unknown target": ({"name": "toaster"}, "is not a target"),
    "target is a path": ({"name": "../x"}, "is not a target"),
    "runtime of another target": ({"runtime": "openvino"}, "expected `onnxruntime`"),
    "unknown runtime": ({"runtime": "toaster"}, "expected `onnxruntime`"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_before_a_runtime_sees_it(tmp_path, case, monkeypatch):
    changes, reason = REFUSED[case]
    bundle = write(tmp_path / "bundle", **changes)
    monkeypatch.setattr("qdx.runtime.pipeline.get_backend", lambda _: pytest.fail("it was reached"))

    with pytest.raises(InvalidBundle, match=reason):
        open_methods(bundle)
