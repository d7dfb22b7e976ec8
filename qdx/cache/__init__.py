"""What qdx keeps between runs, found by what it was computed from: checked, bounded, safe to delete.

An entry is a folder named by its kind and its key, the SHA-256 of all that went into it. It is
complete or absent, and every file is checked before it is used. Nothing here is needed: without
a cache all is computed again, with the same result.
"""

from qdx.cache.keys import key_of
from qdx.cache.store import Store, user_store

__all__ = ["Store", "key_of", "user_store"]
