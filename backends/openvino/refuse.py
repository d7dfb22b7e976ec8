"""What OpenVINO cannot do."""

from __future__ import annotations

from qdx.exporter.errors import Refusal

STORAGE_DTYPES = ("float32", "float16")


def storage_refusal(component: str, storage_dtype: str) -> Refusal | None:
    """Why a component cannot be stored in a dtype, or None."""
    if storage_dtype in STORAGE_DTYPES:
        return None
    return Refusal(
        component,
        f"weights asked in {storage_dtype}, its converter stores {' or '.join(STORAGE_DTYPES)}",
        hint="float16 has the same size",
    )
