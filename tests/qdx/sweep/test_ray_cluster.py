"""Jobs on a cluster: what is lost is computed again, and what would differ is refused."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import time

import pytest

from qdx.exporter.errors import StorageError, UsageError
from qdx.sweep import ray_address, ray_cluster
from qdx.sweep.elsewhere import Request
from qdx.sweep.jobs import Sent, run_jobs
from qdx.sweep.ray_cluster import RayCluster, check_ray
from qdx.sweep.results import Outcome, Results
from qdx.sweep.workers import Words

WORDS = Words("analysis", "part")
PARTS = [[f"{part}{job}".ljust(64, "0") for job in range(6)] for part in range(4)]
EVERY = [key for part in PARTS for key in part]

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra `ray`"
)


def value_of(key):
    return Outcome((float(int(key[:2])),), key[:2].encode())


def opener(parcel):
    """Runs on the nodes."""
    if parcel["mode"] == b"another model":
        raise UsageError("another model")

    def answer(body):
        found = {key: value_of(key) for key in body["keys"]}
        if parcel["mode"] == b"other bits":
            return {key: Outcome((one.numbers[0] + 1e-9,)) for key, one in found.items()}
        if parcel["mode"] == b"dies" and "30".ljust(64, "0") in body["keys"]:
            os._exit(1)
        time.sleep(float(parcel.get("seconds", b"0")))
        return found

    return answer


def requests_of(part, keys):
    return [Request(part, part, {"keys": [key]}) for key in keys]


def probe():
    return Request(0, 0, {"keys": [EVERY[0]]}), {EVERY[0]: value_of(EVERY[0])}


def cluster_at(address, workers=None, **parcel):
    return RayCluster(
        address, workers=workers, opener=opener, probe=probe(),
        parcel={name: value.encode() for name, value in {"mode": "", **parcel}.items()},
    )  # fmt: skip


def run(cluster, results, tell=lambda _: None):
    def never(*_):
        raise AssertionError("computed here")

    sent = Sent(cluster, requests_of)
    run_jobs(PARTS, never, results, words=WORDS, workers=1, tell=tell, sent=sent)


class Twice:
    """Sends every result twice, as a process does that was taken for dead."""

    workers = 1

    def __init__(self, second):
        self.second = second

    def run(self, requests, take, *, words):
        for request in requests:
            found = {key: value_of(key) for key in request.body["keys"]}
            take(request, found, 1.0)
            take(request, self.second(found), 1.0)


def test_a_result_that_comes_twice_counts_once(tmp_path):
    told, results = [], Results(tmp_path)
    run(Twice(dict), results, told.append)

    assert results.known == {key: value_of(key) for key in EVERY}
    assert sorted(key for message in told for key in message["done"]) == sorted(EVERY)


def test_a_result_that_comes_again_with_other_bits_ends_the_sweep(tmp_path):
    def other(found):
        return {key: Outcome((one.numbers[0] + 1e-9,)) for key, one in found.items()}

    with pytest.raises(Exception, match="two results of one job differ"):
        run(Twice(other), Results(tmp_path))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(ray_cluster, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="Ray is not installed") as refused:
        check_ray("127.0.0.1:6379")
    assert "qdx[ray]" in refused.value.hint


@needs_ray
@pytest.mark.parametrize("host", ["127.0.0.2", "127.0.0.1"])
def test_no_cluster_at_the_address(host, monkeypatch):
    # Of the machine's own loopback address Ray makes the one by which others reach it, where nothing listens either.
    monkeypatch.setattr(ray_address, "_ANSWER_S", 0.5)
    with socket.create_server((host, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(StorageError, match="no Ray cluster answers") as refused:
            cluster_at(f"{host}:{port}")
    assert "ray start --head" in refused.value.hint


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory):
    from ray import cloudpickle

    from tests.support.ray_nodes import nodes

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with nodes(3, tmp_path_factory.mktemp("ray")) as cluster:
        yield cluster


@needs_ray
@pytest.mark.slow
class TestOfThreeNodes:
    def test_every_job_is_computed_on_them(self, three_nodes, tmp_path):
        results = Results(tmp_path)
        with cluster_at(three_nodes.address) as cluster:
            assert cluster.workers == 3
            run(cluster, results)
        assert results.known == {key: value_of(key) for key in EVERY}

    @pytest.mark.parametrize(
        ("mode", "words"),
        [("another model", "another model"), ("other bits", "computes other bits")],
    )
    def test_one_that_would_find_something_else_is_refused(
        self, three_nodes, tmp_path, mode, words
    ):
        with (
            pytest.raises(UsageError, match=words),
            cluster_at(three_nodes.address, mode=mode) as cluster,
        ):
            run(cluster, Results(tmp_path))

    def test_a_request_that_kills_its_process_each_time_ends_the_sweep(self, three_nodes, tmp_path):
        with (
            pytest.raises(StorageError, match="process of part 4 died 4 times"),
            cluster_at(three_nodes.address, mode="dies") as cluster,
        ):
            run(cluster, Results(tmp_path))

    def test_what_a_lost_node_was_at_is_computed_by_others(self, three_nodes, tmp_path):
        from tests.support.ray_nodes import kill

        results, lost = Results(tmp_path), []

        def told(message):
            if not lost:
                lost.append(message)
                kill(three_nodes)

        with cluster_at(three_nodes.address, seconds="0.5") as cluster:
            run(cluster, results, told)
        assert lost
        assert len(three_nodes.worker_nodes) == 2
        assert results.known == {key: value_of(key) for key in EVERY}
