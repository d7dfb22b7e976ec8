"""Jobs computed by the processes of a Ray cluster, on as many machines as it has.

Every process is an actor with one processor and one thread. It makes ready what computes from a parcel, computes a probe
whose results are known here, and only then takes requests. What a process was at when it died is asked of another one.
Requests and results are JSON in bytes: nothing else is unpickled here, but what Ray itself sends.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Self

from qdx.exporter.errors import (
    InternalError,
    InvalidInput,
    StorageError,
    UsageError,
    first_line,
    quoted,
)
from qdx.exporter.messages import error_of
from qdx.exporter.progress import SILENT
from qdx.exporter.strict_json import dump_json, parse_json
from qdx.sweep.ray_address import check_address, silence_of
from qdx.sweep.ray_worker import RayWorker
from qdx.sweep.results import unpacked

if TYPE_CHECKING:
    from qdx.exporter.progress import Progress
    from qdx.sweep.elsewhere import Opener, Parcel, Request
    from qdx.sweep.results import Outcome
    from qdx.sweep.workers import Words

__all__ = ["RayCluster", "check_ray"]

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_LOOK_S: Final = 5.0
"""How often it is looked whether machines are left."""
_TELL_AFTER_S: Final = 30.0
_REPEATS: Final = 3
"""How often a request is asked again whose process died, and how many processes in a row may die before their first one."""


def check_ray(address: str) -> None:
    """Refuses to begin what would have to end there.

    Raises:
        UsageError: The address cannot be read, or Ray is not installed.
    """
    check_address(address)
    if find_spec("ray") is None:
        raise _missing()


def _missing() -> UsageError:
    return UsageError("--engine ray: Ray is not installed", hint="pip install 'qdx[ray]'")


@dataclass(eq=False)
class _Process:
    """A process of the cluster, as it is seen from here."""

    actor: Any
    waits_for: Any
    request: Request | None = None
    open: bool = False
    node: str = ""
    place: int | None = field(default=None)


class RayCluster:
    """A connection to a cluster and the processes there; leaving the context ends these and the connection.

    Args:
        address: `HOST:PORT` of the cluster's head. This machine must be part of the cluster.
        workers: How many processes; None takes one for each processor of the cluster.
        opener: Makes ready what computes, there.
        parcel: What it is made from.
        probe: A request and its results here, which every process must come to as well, to the bit.
        progress: Told of machines that come and go.

    Raises:
        UsageError: The address is wrong, or Ray is not installed.
        StorageError: There is no cluster.
    """

    def __init__(
        self,
        address: str,
        *,
        workers: int | None,
        opener: Opener,
        parcel: Parcel,
        probe: tuple[Request, Mapping[str, Outcome]],
        progress: Progress = SILENT,
    ) -> None:
        self._ray = _connected(address)
        self._opener = opener
        self._parcel = self._ray.put(dict(parcel))
        self._probe = probe
        self._progress = progress
        self.workers = workers or max(1, self._processors())
        self._actor = self._ray.remote(RayWorker).options(
            num_cpus=1, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        self._processes: list[_Process] = []
        self._deaths = 0
        self._told = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._processes:
            self._ray.kill(one.actor, no_restart=True)
        self._processes.clear()
        self._ray.shutdown()

    def run(
        self,
        requests: Sequence[Request],
        take: Callable[[Request, Mapping[str, Outcome], float], None],
        *,
        words: Words,
    ) -> None:
        """Computes every request; see `Elsewhere`.

        Raises:
            UsageError: A machine has another model, other versions, or computes other bits.
            QdxError: What was raised in a request.
            StorageError: A request's process died again and again, or no machine is left.
        """
        waiting = deque(requests)
        ended: Counter[int] = Counter()
        numbers = {id(one): number for number, one in enumerate(requests)}
        while waiting or any(one.request for one in self._processes):
            self._start(len(waiting))
            for one in self._processes:
                if waiting and one.open and one.request is None:
                    self._ask(one, self._next_for(one, waiting))
            for one in self._ready():
                answer = self._answer(one)
                if answer is None:
                    self._lost(one)
                    if one.request is not None:
                        ended[numbers[id(one.request)]] += 1
                        if ended[numbers[id(one.request)]] > _REPEATS:
                            raise StorageError(
                                f"{words.process(one.request.part)} died {_REPEATS + 1} times",
                                hint="memory may have run out there: give fewer --workers; the same command continues where it stopped",
                            )
                        waiting.appendleft(one.request)
                    continue
                self._deaths = 0
                if one.request is None:
                    self._opened(one, answer)
                    continue
                request, one.request = one.request, None
                take(request, unpacked(answer["results"]), float(answer["seconds"]))

    def _processors(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 0))

    def _start(self, waiting: int) -> None:
        """Has as many processes as are wanted; those without a processor wait for one."""
        usable = sum(one.request is None for one in self._processes)
        for _ in range(min(self.workers - len(self._processes), waiting - usable)):
            actor = self._actor.remote(self._opener, self._parcel)
            request = dump_json(dict(self._probe[0].body), indent=None)
            self._processes.append(_Process(actor, actor.open.remote(request)))

    def _next_for(self, one: _Process, waiting: deque[Request]) -> Request:
        """The next request of the place that a process was at, else of a place where none is, else the next."""
        others = {other.place for other in self._processes if other.request}
        rules: tuple[Callable[[Request], bool], ...] = (
            lambda request: request.place == one.place,
            lambda request: request.place not in others,
            lambda _: True,
        )
        number = next(n for fits in rules for n, request in enumerate(waiting) if fits(request))
        request = waiting[number]
        del waiting[number]
        return request

    def _ask(self, one: _Process, request: Request) -> None:
        one.request, one.place = request, request.place
        one.waits_for = one.actor.compute.remote(dump_json(dict(request.body), indent=None))

    def _ready(self) -> list[_Process]:
        """Waits for answers."""
        busy = {one.waits_for: one for one in self._processes if one.request or not one.open}
        began = time.monotonic()
        while True:
            found, _ = self._ray.wait(list(busy), num_returns=1, timeout=_LOOK_S)
            if found:
                return [busy[one] for one in found]
            if not any(one.request for one in self._processes):
                self._look(time.monotonic() - began)

    def _look(self, waited_s: float) -> None:
        """While no process is at work: whether one can come."""
        if not self._processors():
            raise StorageError(
                "no machine of the Ray cluster is left",
                hint="start machines with `ray start --address HOST:PORT`; the same command continues where it stopped",
            )
        if waited_s > _TELL_AFTER_S and not self._told:
            self._told = True
            self._progress.say("waiting for processors of the Ray cluster")

    def _answer(self, one: _Process) -> dict[str, Any] | None:
        """What a process sent; None where it died.

        Raises:
            QdxError: What it raised.
        """
        exceptions = self._ray.exceptions
        try:
            data: bytes = self._ray.get(one.waits_for)
        except exceptions.RayTaskError as failed:
            raise InternalError(
                f"a process of the cluster failed: {first_line(failed)}"
            ) from failed
        except exceptions.RayError:
            return None
        message = parse_json(data.decode("ascii"), source="message", error=InvalidInput)
        error = error_of(message)
        if error is not None:
            raise error
        return message

    def _lost(self, one: _Process) -> None:
        self._processes.remove(one)
        # It may only have been out of reach; then it is not to go on.
        self._ray.kill(one.actor, no_restart=True)
        where = f" on {one.node}" if one.node else ""
        self._progress.say(f"a process of the cluster{where} died; what it was at is asked again")
        self._deaths += 1
        if self._deaths > _REPEATS + self.workers:
            raise StorageError(
                "processes of the Ray cluster die before they have computed anything",
                hint="memory may have run out there: give fewer --workers; Ray's logs tell more",
            )

    def _opened(self, one: _Process, answer: Mapping[str, Any]) -> None:
        """Takes a process that is ready, if it computes the bits that are computed here."""
        one.node, one.open = str(answer["node"]), True
        found = unpacked(answer["results"])
        for key, expected in self._probe[1].items():
            if key not in found or found[key].bits != expected.bits:
                raise UsageError(
                    f"--address: {quoted(one.node)} computes other bits than this machine",
                    hint="processors of one kind compute alike; leave that machine out, or run on it alone",
                )


def _connected(address: str) -> Any:
    """Ray, connected."""
    host, port = check_address(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reports its use otherwise
    try:
        import ray
    except ImportError as missing:
        raise _missing() from missing
    if ray.is_initialized():
        raise UsageError(
            "this process is connected to a Ray cluster already", hint="call `ray.shutdown()` first"
        )
    if host in _LOOPBACK:
        host = ray.util.get_node_ip_address()  # Ray looks there for a cluster of this machine
    silence = silence_of(host, port)
    if silence is not None:
        raise _nowhere(address, silence)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as failed:
        raise _nowhere(address, first_line(failed)) from failed
    return ray


def _nowhere(address: str, why: str) -> StorageError:
    return StorageError(
        f"--address: no Ray cluster answers at {quoted(address)}: {why}",
        hint="start one with `ray start --head`, and run this command on one of its machines",
    )
