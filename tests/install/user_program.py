"""What a user of the package writes. A type checker reads it and nothing runs it; where it must object, a comment says with what."""

from __future__ import annotations

from pathlib import Path

import qdx

result: qdx.ExportResult = qdx.export("MODEL", target="openvino", plan="w8", output="bundle")
size_bytes: int = result.size_bytes
folder: Path = result.bundle
report: qdx.Report = qdx.verify(result.bundle, model="MODEL", seeds=2)
worst: list[qdx.Gate] = [gate for gate in report.gates if not gate.ok]
qdx.build("bundle", device=1)
ranges: qdx.Ranges = qdx.calibrate("MODEL", plan="w8a8", output=Path("ranges.safetensors"))
pipeline = qdx.open("bundle", threads=2)
try:
    qdx.export("MODEL", target=Path("own.toml"), plan=Path("own.json"), output="bundle", force=True)
except qdx.TargetRefusal as refusal:
    reasons: list[str] = [one.reason for one in refusal.refusals]

qdx.export("MODEL", target="openvino", plan="w8")  # wrong: call-arg, reportCallIssue
qdx.export("MODEL", target=3, plan="w8", output="bundle")  # wrong: arg-type, reportArgumentType

qdx.export("M", target="openvino", plan="w8")  # wrong: call-arg, reportCallIssue
qdx.export("M", target=3, plan="w8", output="out")  # wrong: arg-type, reportArgumentType
qdx.export("M", "openvino", plan="w8", output="out")  # wrong: call-arg, reportCallIssue
qdx.calibrate("M", plan="w8", output="r", device=0)  # wrong: arg-type, reportArgumentType
qdx.verify("out", model="M", seeds="two")  # wrong: arg-type, reportArgumentType
qdx.exprot("M")  # wrong: attr-defined, reportAttributeAccessIssue
text: str = result.size_bytes  # wrong: assignment, reportAssignmentType
passed = report.passed  # wrong: attr-defined, reportAttributeAccessIssue
