"""What counts as a difference between two runs of the digests."""

from __future__ import annotations

from benchmarks.artifact_bytes import differences

BEFORE = {"digits openvino w8": {"qdx.json": "a", "model.bin": "b"}, "digits coreml w8": {"x": "c"}}


def test_the_manifest_may_differ():
    assert differences(BEFORE, {**BEFORE, "digits openvino w8": {"qdx.json": "z", "model.bin": "b"}}) == []  # fmt: skip


def test_an_altered_or_missing_file_is_named():
    after = {**BEFORE, "digits openvino w8": {"model.bin": "z"}, "digits coreml w8": {}}

    assert differences(BEFORE, after) == ["digits coreml w8: x", "digits openvino w8: model.bin"]


def test_an_export_that_one_alone_has_is_named():
    assert differences(BEFORE, {"digits coreml w8": {"x": "c"}}) == ["digits openvino w8: in one alone"]  # fmt: skip
