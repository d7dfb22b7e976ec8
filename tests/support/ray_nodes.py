"""A Ray cluster of several nodes on the loopback interface; every process that it starts is ended with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.2"  # 127.0.0.1 Ray replaces by the address of the machine
_MEMORY = 80 * 2**20


@contextmanager
def nodes(count: int, folder: Path) -> Iterator[Any]:
    """A cluster of a head without processors and of nodes with one each; `address`, `worker_nodes` and `remove_node` are Ray's."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # Ray spells it so
    from ray.cluster_utils import Cluster

    common = {"node_ip_address": LOOPBACK, "object_store_memory": _MEMORY}
    head = {
        **common,
        "num_cpus": 0,
        "include_dashboard": False,
        "dashboard_host": LOOPBACK,
        "temp_dir": str(folder),
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=1, **common)
        yield cluster
    finally:
        cluster.shutdown()


def kill(cluster: Any) -> None:
    """Ends one node as a power cut would."""
    node = next(iter(cluster.worker_nodes))
    cluster.remove_node(node, allow_graceful=False)
