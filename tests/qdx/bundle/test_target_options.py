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


def with_target(pinned=None, profile_layout=None, **changes):
    """A manifest whose target and the profile in it say the same; `pinned` are options that the profile alone lacks."""
    manifest = copy.deepcopy(MANIFEST)
    target = manifest["target"]
    if "runtime" in changes and changes["runtime"] in list_targets():
        target["profile"] = load_target(changes["runtime"]).to_json()
    target |= changes
    target["profile"] |= changes
    target["options"] |= pinned or {}
    target["profile"]["layout"] |= profile_layout or {}
    return manifest


def write(folder, **changes):
    with BundleWriter(folder) as writer:
        fill(writer.staging)
        writer.commit(with_target(**changes))
    return read_bundle(folder)


@pytest.mark.parametrize("name", list_targets())
def test_what_a_target_pins_is_accepted(tmp_path, name):
    profile = load_target(name)
    manifest = copy.deepcopy(MANIFEST)
    manifest["target"] = {
        "name": name,
        "runtime": profile.runtime,
        "options": dict(profile.options),
        "profile": profile.to_json(),
    }
    with BundleWriter(tmp_path / "bundle") as writer:
        fill(writer.staging)
        writer.commit(manifest)

    assert checked_options(read_bundle(tmp_path / "bundle").manifest) == dict(profile.options)


def test_a_target_of_a_user_s_needs_no_file_where_its_bundle_is_opened(tmp_path):
    bundle = write(tmp_path / "bundle", name="my-own")

    target = bundle.manifest.target
    assert "my-own" not in list_targets()
    assert checked_options(bundle.manifest).items() <= target.profile.options.items()


REFUSED = {
    "cache": ({"name": "openvino", "runtime": "openvino", "options": {"CACHE_DIR": "x"}}, "CACHE_DIR"),
    "library": ({"options": {"session.custom_ops_library": "x.so"}}, "custom_ops_library"),
    "profiling": ({"options": {"session.save_model": "x"}}, "save_model"),
    "option of another target": ({"options": {"EXECUTION_MODE_HINT": "ACCURACY"}}, "EXECUTION_MODE_HINT"),
    "option that the target does not pin": ({"pinned": {"session.disable_prepacking": "1"}}, "pins"),
    "unknown runtime": ({"runtime": "toaster"}, "`runtime` is `toaster`"),
    "file outside": ({"profile_layout": {"model_file": "../x"}}, "model_file"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_before_a_runtime_sees_it(tmp_path, case, monkeypatch):
    changes, reason = REFUSED[case]
    bundle = write(tmp_path / "bundle", **changes)
    monkeypatch.setattr("qdx.runtime.pipeline.get_backend", lambda _: pytest.fail("it was reached"))

    with pytest.raises(InvalidBundle, match=reason):
        open_methods(bundle)
