"""What a processor computes, from the words of each system."""

from __future__ import annotations

import pytest

from qdx.doctor.processor import (
    _from_cpuinfo,
    _remarks,
    kernels_of,
    parse_sysctl,
    read_processor,
)

ZEN4 = "model name\t: AMD EPYC 9\nflags\t\t: fpu avx2 f16c avx512f avx512_vnni avx512_bf16\n\nmodel name\t: other\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp i8mm bf16\n"
M2 = "machdep.cpu.brand_string: Apple M2\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 1\nhw.optional.arm.FEAT_SME: 0\nhw.optional.AdvSIMD: 1\n"
INTEL_MAC = "machdep.cpu.brand_string: Intel(R) Core(TM) i7\nmachdep.cpu.features: FPU F16C\nmachdep.cpu.leaf7_features: AVX2 AVX512F\n"


def here(machine, flags):
    return [one.name for one in kernels_of(machine, flags) if one.present]


def linux(tmp_path, text):
    (tmp_path / "cpuinfo").write_text(text)
    return _from_cpuinfo(tmp_path / "cpuinfo")


def test_linux_on_x86(tmp_path):
    name, flags = linux(tmp_path, ZEN4)

    assert name == "AMD EPYC 9"
    assert here("x86_64", flags) == ["AVX2", "F16C", "AVX-512", "AVX-512 VNNI", "AVX-512 BF16"]


def test_linux_on_arm(tmp_path):
    name, flags = linux(tmp_path, ARM)

    assert name == ""
    assert here("aarch64", flags) == ["FP16", "dotprod", "i8mm", "BF16"]


@pytest.mark.parametrize(
    ("text", "machine", "expected"),
    [
        (M2, "arm64", ("Apple M2", ["dotprod", "i8mm"])),
        (INTEL_MAC, "x86_64", ("Intel(R) Core(TM) i7", ["AVX2", "F16C", "AVX-512"])),
    ],
)
def test_macs(text, machine, expected):
    name, flags = parse_sysctl(text)

    assert (name, here(machine, flags)) == expected


@pytest.mark.parametrize(
    ("machine", "flags", "words"),
    [
        ("x86_64", {"avx2"}, "saturate without VNNI: set `weights.reduce_range`"),
        ("x86_64", {"avx2", "avx_vnni"}, "are exact"),
        ("x86_64", {"amx_int8"}, "are exact"),
        ("aarch64", {"asimddp"}, "are exact"),
        ("riscv64", {"v"}, "does not tell"),
        ("x86_64", set(), "does not tell"),
    ],
)
def test_what_that_means(machine, flags, words):
    assert words in _remarks(machine, kernels_of(machine, frozenset(flags)))[0]


def test_arm_without_dot_products_does_not_saturate_for_want_of_vnni():
    assert "VNNI" not in _remarks("aarch64", kernels_of("aarch64", frozenset({"fp"})))[0]


def test_this_processor():
    found = read_processor()

    assert 1 <= found.usable_cores <= found.cores
    assert found.remarks


def test_a_system_without_a_table_of_processors(tmp_path):
    assert _from_cpuinfo(tmp_path / "none") == ("", frozenset())
