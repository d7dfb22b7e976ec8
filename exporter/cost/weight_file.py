"""How large a file of weights is: its tensors, and what the format puts between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["FileLayout", "StoredTensor"]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file.

    Attributes:
        name: Its name, or that of a part of a weight.
        elements: Numbers in it.
        size_bytes: Their bytes.
    """

    name: str
    elements: int
    size_bytes: int


@dataclass(frozen=True)
class FileLayout:
    """What a format puts around tensors.

    Attributes:
        header_bytes: Once, at the beginning.
        entry_bytes: In front of each tensor.
        multiple_bytes: At multiples of which entries begin.
        outside_elements: Tensors of fewer elements stand in the model's own file.
        outside_bytes: Tensors of no more bytes do, too.
        page_bytes: On a multiple of this large tensors begin.
        large_bytes: Those of more bytes are large.
    """

    header_bytes: int = 0
    entry_bytes: int = 0
    multiple_bytes: int = 1
    outside_elements: int = 0
    outside_bytes: int = -1
    page_bytes: int = 1
    large_bytes: int = 0

    def has(self, tensor: StoredTensor) -> bool:
        """Whether a tensor stands in the file, not in the model's own."""
        return tensor.elements >= self.outside_elements and tensor.size_bytes > self.outside_bytes

    def size_bytes(self, tensor: StoredTensor) -> int:
        """What a tensor costs in the file or in the model's own, with what fills up its entry.

        Not with what brings it onto a page: that depends on the tensor before, and is less than `page_bytes`.
        """
        if not self.has(tensor):
            return tensor.size_bytes
        whole = self.entry_bytes + tensor.size_bytes
        return whole + -whole % self.multiple_bytes

    def file_bytes(self, tensors: Iterable[StoredTensor]) -> int:
        """Size of the file with tensors in that order."""
        end = self.header_bytes
        for tensor in filter(self.has, tensors):
            end += -end % self.multiple_bytes
            if tensor.size_bytes > self.large_bytes:
                end += -end % self.page_bytes
            end += self.entry_bytes + tensor.size_bytes
        return end
