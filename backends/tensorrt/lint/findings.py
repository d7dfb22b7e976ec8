"""What a rule says, and what it may know besides the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import onnx_ir as ir

from qdx.backends.tensorrt.flavour import ENTERPRISE, Flavour
from qdx.backends.tensorrt.lint.subject import Subject
from qdx.backends.tensorrt.versions import SUPPORTED, Version, VersionRange

__all__ = ["Check", "DeviceFacts", "Fault", "Finding", "Rule", "Severity", "name_of"]


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """TensorRT refuses the model, or computes something else than the model says."""
    WARNING = "warning"
    """The model is right; it runs slower, or less precisely, than it could."""


@dataclass(frozen=True)
class DeviceFacts:
    """Where a model is meant to run.

    Attributes:
        versions: Versions of TensorRT; an error on the oldest is an error.
        compute_capability: Of the device, such as (8, 9); None where it is any.
        refit: Whether weights will be exchanged in a built engine.
        flavour: TensorRT or TensorRT-RTX; the versions are its own.
    """

    versions: VersionRange = SUPPORTED
    compute_capability: tuple[int, int] | None = None
    refit: bool = False
    flavour: Flavour = ENTERPRISE

    @property
    def oldest(self) -> Version:
        """The oldest of the versions, as the tables of features and operators count them."""
        return self.flavour.table_version(self.versions.lowest)

    @property
    def runtime(self) -> str:
        """The oldest of the versions in words, such as `TensorRT 10.12`."""
        return f"{self.flavour.title} {self.versions.lowest}"


@dataclass(frozen=True)
class Fault:
    """One breach of a rule.

    Attributes:
        where: The node's name, or the value's.
        message: What was found, and what is expected.
        hint: What to change, or None.
    """

    where: str
    message: str
    hint: str | None = None


Check = Callable[[Subject, DeviceFacts], Iterable[Fault]]


@dataclass(frozen=True)
class Rule:
    """One thing that must hold.

    Attributes:
        name: Its name, for reports and for tests.
        severity: How bad a breach is.
        says: What must hold, in one line.
        check: Finds the breaches.
    """

    name: str
    severity: Severity
    says: str
    check: Check


@dataclass(frozen=True)
class Finding:
    """A breach with the rule that it breaks.

    Attributes:
        rule: The rule's name.
        severity: How bad it is.
        node: The node's name, or the value's.
        message: What was found, and what is expected.
        hint: What to change, or None.
    """

    rule: str
    severity: Severity
    node: str
    message: str
    hint: str | None = None


def name_of(node: ir.Node) -> str:
    """A node's name; where it has none, its kind and its first output."""
    outputs = [str(value.name) for value in node.outputs if value.name]
    return node.name or f"{node.op_type} {outputs[0] if outputs else ''}".strip()
