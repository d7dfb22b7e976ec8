from __future__ import annotations

import contextlib
import json
import os
import random
import shutil

import pytest

from qdx.bundle.reader import read_bundle
from qdx.bundle.seal import SEAL, seal_of
from qdx.exporter import files
from qdx.exporter.errors import InternalError, InvalidBundle, StorageError
from tests.support.bundles import write


@pytest.fixture
def bundle(memory_path):
    return write(memory_path / "bundle")


def edit(bundle, change, *, seal=True):
    """Changes the manifest as someone with an editor would, who also computes its digests again."""
    path = bundle / "qdx.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    if seal and SEAL in manifest:
        # As far as it is JSON of ours: a size beyond 2**53 is none.
        with contextlib.suppress(InternalError):
            manifest[SEAL] = seal_of(manifest)
    path.write_text(json.dumps(manifest))


def test_a_genuine_bundle(bundle):
    read = read_bundle(bundle)
    assert read.path == bundle
    assert read.manifest.components["unet"].methods["forward"].inputs[0].shape == ("b", 3)
    assert read.file("model_index.json").read_bytes() == b"{}\n"
    assert len(read.sha256) == 64


def test_a_copied_bundle(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "copy")
    assert read_bundle(tmp_path / "copy").sha256 == read_bundle(bundle).sha256


def test_a_bundle_behind_a_link_that_the_user_names(bundle, tmp_path):
    (tmp_path / "latest").symlink_to(bundle)
    assert read_bundle(tmp_path / "latest").path == tmp_path / "latest"


def test_only_listed_files_are_given_out(bundle):
    read = read_bundle(bundle)
    for name in ["qdx.json", "../x", "unet", "unet/../model_index.json", "/etc/passwd"]:
        with pytest.raises(InvalidBundle, match="does not list"):
            read.file(name)


SABOTAGE = {
    "missing file": (lambda b: (b / "unet" / "model.onnx").unlink(), "missing"),
    "missing folder": (lambda b: shutil.rmtree(b / "unet"), "missing"),
    "extra file": (lambda b: (b / "unet" / "plugin.so").write_bytes(b""), "not listed"),
    "extra file at the top": (lambda b: (b / "run.py").write_bytes(b""), "not listed"),
    "extra empty folder": (lambda b: (b / "empty").mkdir(), "is empty"),
    "hidden file": (lambda b: (b / ".hidden").write_bytes(b""), "not an allowed"),
    "strange name": (lambda b: (b / "a b").write_bytes(b""), "not an allowed"),
    "renamed file": (
        lambda b: (b / "unet" / "model.onnx").rename(b / "unet" / "m.onnx"),
        "missing",
    ),
    "renamed case": (
        lambda b: (b / "unet" / "model.onnx").rename(b / "unet" / "Model.onnx"),
        "missing",
    ),
    "swapped files": (lambda b: swap(b / "unet" / "model.onnx", b / "model_index.json"), "bytes"),
    "longer": (lambda b: append(b / "unet" / "model.onnx", b"x"), "10 bytes"),
    "shorter": (lambda b: os.truncate(b / "unet" / "model.onnx", 3), "3 bytes"),
    "emptied": (lambda b: os.truncate(b / "unet" / "model.onnx", 0), "0 bytes"),
    "altered": (lambda b: (b / "unet" / "model.onnx").write_bytes(b"graph nex"), "altered"),
    "file becomes a folder": (lambda b: to_folder(b / "model_index.json"), "missing"),
    "symbolic link": (lambda b: relink(b / "model_index.json", "symbolic"), "symbolic link"),
    "symbolic link to a folder": (lambda b: relink(b / "unet", "symbolic"), "symbolic link"),
    "linked manifest": (lambda b: relink(b / "qdx.json", "symbolic"), "symbolic link"),
    "dangling link": (lambda b: (b / "x").symlink_to("nothing"), "symbolic link"),
    "hard link": (lambda b: relink(b / "model_index.json", "hard"), "hard links"),
    "hard linked manifest": (lambda b: relink(b / "qdx.json", "hard"), "hard links"),
    "pipe": (lambda b: os.mkfifo(b / "x"), "pipe"),
    "pipe as manifest": (lambda b: to_pipe(b / "qdx.json"), "pipe"),
    "no manifest": (lambda b: (b / "qdx.json").unlink(), "has no `qdx.json`"),
    "empty manifest": (lambda b: (b / "qdx.json").write_bytes(b""), "expected JSON"),
    "manifest is an array": (lambda b: (b / "qdx.json").write_bytes(b"[]"), "expected an object"),
    "manifest is not UTF-8": (
        lambda b: (b / "qdx.json").write_bytes(b'{"a": "\xff"}'),
        "not UTF-8",
    ),
    "manifest with BOM": (
        lambda b: (b / "qdx.json").write_bytes(b"\xef\xbb\xbf" + (b / "qdx.json").read_bytes()),
        "BOM",
    ),
    "huge manifest": (lambda b: os.truncate(b / "qdx.json", 1 << 40), "expected at most"),
    "duplicate key": (
        lambda b: (b / "qdx.json").write_bytes(
            b'{"schema": 1, ' + (b / "qdx.json").read_bytes()[1:]
        ),
        "appears twice",
    ),
}


def append(path, data):
    path.write_bytes(path.read_bytes() + data)


def swap(first, second):
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def to_folder(path):
    path.unlink()
    path.mkdir()
    (path / "x").write_bytes(b"{}\n")


def to_pipe(path):
    path.unlink()
    os.mkfifo(path)


def relink(path, kind):
    outside = path.parent.parent / f"outside-{path.name}"
    path.rename(outside)
    (path.symlink_to if kind == "symbolic" else path.hardlink_to)(outside)


@pytest.mark.parametrize("case", SABOTAGE)
def test_sabotage_is_refused(bundle, case):
    damage, reason = SABOTAGE[case]
    damage(bundle)
    with pytest.raises(InvalidBundle, match=reason):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("damage", "hint"),
    [
        (SABOTAGE["missing file"][0], "copy the whole bundle, or export again"),
        (SABOTAGE["extra empty folder"][0], "copy the whole bundle, or move"),
        (SABOTAGE["extra file"][0], "move it out of the bundle"),
        (lambda b: (b / "unet" / ".DS_Store").write_bytes(b""), "move it out of the bundle"),
    ],
)
def test_what_to_do_about_files_that_are_missing_or_foreign(bundle, damage, hint):
    damage(bundle)
    with pytest.raises(InvalidBundle) as caught:
        read_bundle(bundle)

    assert hint in caught.value.hint
    assert str(bundle) in str(caught.value)


def set_file(field, value):
    return lambda m: m["files"][1].update({field: value})


def port(manifest, kind="inputs"):
    return manifest["components"]["unet"]["methods"]["forward"][kind][0]


def rename(mapping, new):
    """Gives the only entry another key."""
    ((_, value),) = mapping.items()
    mapping.clear()
    mapping[new] = value


FORGERIES = {
    "unknown major": (lambda m: m.update(schema="qdx.bundle/2"), "expected `qdx.bundle/1`"),
    "no schema": (lambda m: m.pop("schema"), "schema `None`"),
    "schema is a number": (lambda m: m.update(schema=1), "schema `1`"),
    "unknown key": (lambda m: m.update(__class__="os.system"), "`__class__`: Extra inputs"),
    "unknown key inside": (lambda m: m["target"].update(plugin="x.so"), "`target.plugin`"),
    "missing key": (lambda m: m.pop("components"), "`components`: Field required"),
    "shapes": (lambda m: m.update(shapes="all"), "`shapes`"),
    "version is a number": (lambda m: m.update(qdx=1), "`qdx`"),
    "size is text": (set_file("size_bytes", "9"), "`files.1.size_bytes`"),
    "size is a float": (set_file("size_bytes", 9.0), "`files.1.size_bytes`"),
    "size is true": (set_file("size_bytes", True), "`files.1.size_bytes`"),
    "size is negative": (set_file("size_bytes", -1), "`files.1.size_bytes`"),
    "size is too large": (set_file("size_bytes", 2**60), "2\\*\\*53"),
    "size is wrong": (set_file("size_bytes", 10), "expected 10"),
    "digest is wrong": (set_file("sha256", "0" * 64), "altered"),
    "digest is short": (set_file("sha256", "0" * 63), "`files.1.sha256`"),
    "digest is long": (set_file("sha256", "0" * 65), "`files.1.sha256`"),
    "digest with line feed": (set_file("sha256", "0" * 64 + "\n"), "`files.1.sha256`"),
    "digest in capitals": (set_file("sha256", "A" * 64), "`files.1.sha256`"),
    "digest is a path": (set_file("sha256", "../" * 21 + "x"), "`files.1.sha256`"),
    "path up": (set_file("path", "unet/../../x"), "not an allowed relative path"),
    "path absolute": (set_file("path", "/etc/passwd"), "not sorted|not an allowed"),
    "path with NUL": (set_file("path", "unet/\0"), "NUL"),
    "path with backslash": (set_file("path", "unet\\x"), "not an allowed"),
    "path is the manifest": (set_file("path", "qdx.json"), "another entry"),
    "path is listed twice": (lambda m: m["files"].insert(1, m["files"][1]), "not unique"),
    "paths not sorted": (lambda m: m["files"].reverse(), "not sorted"),
    "path in two cases": (
        lambda m: m["files"].insert(1, {**m["files"][0], "path": "model_index.jsoN"}),
        "not sorted|another entry",
    ),
    "folder in two cases": (
        lambda m: m["files"].insert(0, {**m["files"][0], "path": "UNET/model.onnx"}),
        "another entry",
    ),
    "file is a folder too": (
        lambda m: m["files"].insert(1, {**m["files"][0], "path": "model_index.json/x"}),
        "another entry",
    ),
    "file left out": (lambda m: m["files"].pop(1), "not listed"),
    "file added": (
        lambda m: m["files"].append({**m["files"][0], "path": "zzz"}),
        "missing",
    ),
    "no files": (lambda m: m.update(files=[]), "holds no file"),
    "too many files": (
        lambda m: m.update(files=[{**m["files"][0], "path": f"f{n:05}"} for n in range(5000)]),
        "at most 4096",
    ),
    "folder up": (
        lambda m: m["components"]["unet"]["methods"]["forward"].update(folder="../x"),
        "not an allowed",
    ),
    "folder without files": (
        lambda m: m["components"]["unet"]["methods"]["forward"].update(folder="vae"),
        "holds no file",
    ),
    "folder is a prefix only": (
        lambda m: m["components"]["unet"]["methods"]["forward"].update(folder="une"),
        "holds no file",
    ),
    "source digest": (lambda m: m["source"]["files"].update(x="y"), "`source.files.x`"),
    "negative dimension": (
        lambda m: m["components"]["unet"]["methods"]["forward"]["inputs"][0].update(shape=[-1]),
        "inputs.0.shape",
    ),
    "resolution of a number": (lambda m: m.update(resolution=[1]), "`resolution.0`"),
    "resolution of nothing": (lambda m: m.update(resolution=[{}]), "`resolution.0.component`"),
    "resolution with more": (lambda m: m["resolution"][0].update(x=1), "`resolution.0.x`"),
    "resolution twice": (lambda m: m["resolution"].append(m["resolution"][0]), "twice"),
    "resolution of another": (
        lambda m: m["resolution"][0].update(component="vae"),
        "has no `unet`",
    ),
    "no methods": (lambda m: m["components"]["unet"].update(methods={}), "unet.methods"),
    "type of an input": (lambda m: port(m).update(dtype="foo"), "inputs.0.dtype"),
    "type of an output": (lambda m: port(m, "outputs").update(dtype="Tensor"), "outputs.0.dtype"),
    "left out and present": (lambda m: m.update(left_out=["unet"]), "one of the two"),
    "left out and unknown": (lambda m: m.update(left_out=["vae"]), "has no `vae`"),
    "component with an escape": (
        lambda m: rename(m["components"], "unet\x1b[2J"),
        r"`components\.unet\\x1b\[2J",
    ),
    "component with a dot": (lambda m: rename(m["components"], "a.b"), "`components.a.b"),
    "component with a line feed": (lambda m: rename(m["components"], "unet\n"), "`components.unet"),
    "component without a name": (lambda m: rename(m["components"], ""), "`components."),
    "method with an escape": (
        lambda m: rename(m["components"]["unet"]["methods"], "\x9b2J"),
        "unet.methods",
    ),
    "omitted with an escape": (lambda m: m.update(omitted={"\x1b": "x"}), "`omitted"),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_forged_manifests_are_refused(bundle, case):
    change, reason = FORGERIES[case]
    edit(bundle, change)
    with pytest.raises(InvalidBundle, match=reason):
        read_bundle(bundle)


EDITS = {
    "the bound of a gate": (lambda m: gates(m)["component"].update(sqnr_db_min=5), "`resolved.gates`"),
    "a gate more": (lambda m: gates(m).update(lowering={"sqnr_db_min": 50}), "`resolved.gates`"),
    "the plan": (lambda m: m["plan"].update(name="w8"), "`plan`"),
    "what the plan became": (lambda m: m["resolved"].update(mixed_precision=True), "`resolved`"),
    "the float type": (lambda m: m["resolution"][0].update(becomes="float32"), "`resolution`"),
    "the call": (lambda m: m["call"].update(num_inference_steps=50), "`call`"),
    "a key more": (lambda m: m.update(needs_model="no weights"), "`needs_model`"),
    "the digest itself": (lambda m: m[SEAL].update(plan="0" * 64), "`plan`"),
    "no digest of a part": (lambda m: m[SEAL].pop("plan"), "`plan`"),
    "a part and the call": (
        lambda m: (m["call"].clear(), m["plan"].update(name="w8")), "`call`, `plan`",
    ),
}  # fmt: skip


def gates(manifest):
    return manifest["resolved"]["gates"]


@pytest.mark.parametrize("case", EDITS)
def test_an_edited_manifest_does_not_open_silently_and_the_edited_part_is_named(bundle, case):
    change, parts = EDITS[case]
    edit(bundle, change, seal=False)
    with pytest.raises(InvalidBundle) as caught:
        read_bundle(bundle)

    assert f"{parts} was edited after the export" in caught.value.message
    assert "export again" in caught.value.hint
    assert "--plan or --gates" in caught.value.hint


def test_a_manifest_written_with_other_spaces_is_the_same(bundle):
    edit(bundle, lambda _: None, seal=False)

    assert read_bundle(bundle).manifest.qdx == "0.1.0"


def test_a_manifest_without_digests_is_to_be_exported_again(bundle):
    edit(bundle, lambda m: m.pop(SEAL))
    with pytest.raises(InvalidBundle, match="has no `content_sha256`") as caught:
        read_bundle(bundle)

    assert "export again" in caught.value.hint


def test_a_newer_schema_gets_advice(bundle):
    edit(bundle, FORGERIES["unknown major"][0])
    with pytest.raises(InvalidBundle) as caught:
        read_bundle(bundle)
    assert "export again" in caught.value.hint


def test_a_wrong_value_is_named_with_its_place(bundle):
    text = (bundle / "qdx.json").read_text()
    (bundle / "qdx.json").write_text(text.replace('"static"', '"elastic"'))
    line = next(n for n, row in enumerate(text.splitlines(), 1) if '"static"' in row)
    with pytest.raises(InvalidBundle, match=rf"qdx.json:{line}:3`: `shapes`"):
        read_bundle(bundle)


def test_every_flipped_bit_of_the_files_is_found(bundle):
    chance = random.Random(0)
    paths = [path for path in bundle.rglob("*") if path.is_file() and path.name != "qdx.json"]
    for _ in range(200):
        path = chance.choice(paths)
        genuine = path.read_bytes()
        data = bytearray(genuine)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        with pytest.raises(InvalidBundle, match="altered"):
            read_bundle(bundle)
        path.write_bytes(genuine)


def test_flipped_bits_of_the_manifest_are_refused_or_change_its_digest(bundle):
    chance, genuine = random.Random(0), (bundle / "qdx.json").read_bytes()
    digest = read_bundle(bundle).sha256
    for _ in range(300):
        data = bytearray(genuine)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (bundle / "qdx.json").write_bytes(data)
        try:
            read = read_bundle(bundle)
        except InvalidBundle:
            continue
        assert read.sha256 != digest


def test_nothing_is_opened_before_names_and_kinds_are_checked(bundle, monkeypatch):
    (bundle / "unet" / "link").symlink_to("/etc/passwd")
    opened = []
    monkeypatch.setattr(files.os, "open", lambda *args: opened.append(args))
    with pytest.raises(InvalidBundle, match="symbolic link"):
        read_bundle(bundle)
    assert opened == []


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_what_is_no_bundle(tmp_path, kind):
    path = tmp_path / "x"
    match kind:
        case "file":
            path.write_bytes(b"")
        case "empty":
            path.mkdir()
    with pytest.raises(InvalidBundle, match="expected a bundle"):
        read_bundle(path)


def test_a_folder_that_cannot_be_listed_is_a_storage_error(bundle, monkeypatch):
    def refuse(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        read_bundle(bundle)
