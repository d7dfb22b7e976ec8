"""Addresses of clusters, and what answers there."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import pytest

from qdx.exporter.errors import UsageError
from qdx.sweep.ray_address import check_address, silence_of

HOST = "127.0.0.1"


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":6379", "host:0", "host:65536", "ray://host:10001", "a b:1", "host:6379\n"]
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        check_address(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("10.0.0.1:6379", ("10.0.0.1", 6379)), ("[::1]:1", ("::1", 1))]
)
def test_an_address_is_read(text, expected):
    assert check_address(text) == expected


@contextmanager
def server_that(answers):
    """A server on loopback; `answers` takes each connection."""
    with socket.create_server((HOST, 0)) as server:

        def serve():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                answers(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
    thread.join(5)


def test_a_port_that_takes_connections_and_says_nothing_is_told_soon():
    with socket.create_server((HOST, 0)) as server:
        began = time.monotonic()
        silence = silence_of(HOST, server.getsockname()[1], answer_s=0.3)
    assert "says nothing" in silence
    assert time.monotonic() - began < 5


def test_one_that_says_a_byte_at_a_time_does_not_take_longer():
    def drip(connection):
        for _ in range(9):
            time.sleep(0.2)
            try:
                connection.sendall(b"x")
            except OSError:
                return

    with server_that(drip) as port:
        assert "says nothing" in silence_of(HOST, port, answer_s=0.5)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b""])
def test_another_program_is_told(answer):
    def say(connection):
        connection.recv(100)
        connection.sendall(answer)

    with server_that(say) as port:
        assert silence_of(HOST, port) == "another program answers there"


def test_a_closed_port_is_told():
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in silence_of(HOST, port)


def test_what_begins_as_http_2_does_may_be_a_cluster():
    def say(connection):
        assert connection.recv(100).startswith(b"PRI * HTTP/2.0")
        connection.sendall(b"\0\0\6\4\0\0\0\0\0" + b"\0\3\0\0\0\1")

    with server_that(say) as port:
        assert silence_of(HOST, port) is None


def test_with_tls_an_open_port_is_enough(monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    with socket.create_server((HOST, 0)) as server:
        assert silence_of(HOST, server.getsockname()[1]) is None
