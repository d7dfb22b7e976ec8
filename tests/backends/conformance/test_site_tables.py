"""Every artifact says which sites its operations compute, and its audit goes by that alone."""

from __future__ import annotations

import shutil

import onnx_ir as ir
import pytest

from qdx.backends.onnx.site_tables import read_tables as of_onnx
from qdx.backends.site_table import SITES, SiteTable
from qdx.exporter.errors import InvalidBundle
from qdx.exporter.graph.analysis.sites import sites
from tests.support.conformance.cases import case_of


def _in_onnx(folder):
    return of_onnx(ir.load(folder / "model.onnx"), source="model.onnx")[0]


def _in_ir(folder):
    from qdx.backends.openvino.package import core
    from qdx.backends.openvino.site_tables import read_tables

    return read_tables(core().read_model(folder / "openvino_model.xml"), source="the IR")[0]


def _in_package(folder):
    from qdx.backends.coreml.artifact import read_artifact

    return SiteTable.read(read_artifact(folder).metadata.get(SITES), source="the package")


def _weighted():
    return {site.key for site in sites(case_of("block").graph) if site.weight and site.ports}


# How to read a table, and the file and the bytes by which it is found.
TABLES = {
    "coreml": (_in_package, "model.mlmodel", b"qdx.sites"),
    "onnxruntime": (_in_onnx, "model.onnx", b"qdx.sites"),
    "openvino": (_in_ir, "openvino_model.xml", b"<sites "),
    "tensorrt": (_in_onnx, "model.onnx", b"qdx.sites"),
}


def altered(subject, folder, old, new):
    """The audit of the float artifact with other bytes in the place of some, as many."""
    assert len(old) == len(new)
    shutil.copytree(subject.floats("block").folder, folder)
    (path,) = folder.rglob(TABLES[subject.target][1])
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return subject.backend.audit(folder, subject.profile.options, threads=1)


@pytest.mark.parametrize("kind", ["floats", "quantized"])
def test_each_weighted_site_is_in_the_table(subject, kind):
    table = TABLES[subject.target][0](getattr(subject, kind)("block").folder)

    weighted = _weighted()
    assert weighted
    assert weighted <= {key for name in table.names for key in table.sites(name)}


def test_each_weighted_product_is_audited(subject):
    executed = subject.backend.audit(
        subject.floats("block").folder, subject.profile.options, threads=1
    )

    assert _weighted() <= {key for kernel in executed for key in kernel.sites}


def test_an_artifact_without_a_table_is_refused(subject, tmp_path):
    found = TABLES[subject.target][2]

    with pytest.raises(InvalidBundle, match="has no table of sites") as caught:
        altered(subject, tmp_path / "altered", found, found.replace(b"sites", b"other"))
    assert caught.value.hint == "export again"


def test_an_altered_table_is_what_the_audit_tells(subject, tmp_path):
    """Nothing else is looked at, such as names of modules."""
    quote = b"&quot;" if subject.target == "openvino" else b'"'
    key = b"[%sconv_in%s]" % (quote, quote)

    executed = altered(subject, tmp_path / "altered", key, key.replace(b"conv_in", b"another"))

    found = {key for kernel in executed for key in kernel.sites}
    assert {"another", "conv_out"} <= found
    assert "conv_in" not in found
