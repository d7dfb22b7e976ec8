"""What OpenVINO cannot do."""

from __future__ import annotations

from qdx.exporter.errors import Refusal

STORAGE_DTYPES = ("float32", "float16", "bfloat16")


def storage_refusal(component: str, storage_dtype: str) -> Refusal | None:
    """Why a component cannot be stored in a dtype, or None."""
    if storage_dtype in STORAGE_DTYPES:
        return None
    return Refusal(
        component,
        f"weights asked in {storage_dtype}, OpenVINO stores {', '.join(STORAGE_DTYPES)}",
    )
