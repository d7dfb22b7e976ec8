"""Processes: they answer, they fail with words, and none is left behind."""

from __future__ import annotations

import io
import signal

import pytest

from qdx.bench.process import start_worker
from qdx.bench.worker import peak_bytes, serve
from qdx.exporter.errors import InvalidInput, RuntimeMissing, UsageError
from qdx.exporter.messages import read_message, write_message


def test_a_message_is_one_line_whatever_is_in_it():
    stream = io.BytesIO()
    message = {"text": "a\nb\u2028", "list": [1, 2.5, None], "inner": {"": True}}
    write_message(stream, message)
    write_message(stream, {})
    stream.seek(0)

    assert stream.getvalue().count(b"\n") == 2
    assert (read_message(stream), read_message(stream), read_message(stream)) == (message, {}, None)


def test_half_a_message_is_the_end():
    assert read_message(io.BytesIO(b'{"seconds": 1')) is None


def test_what_is_no_message_is_refused():
    with pytest.raises(InvalidInput):
        read_message(io.BytesIO(b"Segmentation fault\n"))


def test_the_peak_is_that_of_this_process():
    peak = peak_bytes()

    assert peak is None or peak > 10 << 20


def test_a_process_answers_and_ends_with_its_context():
    with start_worker("one") as worker:
        answer = worker.ask({"do": "memory"})
        assert worker._process.poll() is None

    assert set(answer) == {"peak_bytes"}
    assert worker._process.poll() == -signal.SIGKILL


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_no_process_outlives_an_interruption(failure):
    with pytest.raises(failure), start_worker("one") as worker:
        raise failure

    assert worker._process.poll() is not None


def test_a_process_ends_with_its_input():
    with start_worker("one") as worker:
        worker.ask({"do": "memory"})
        worker._process.stdin.close()

        assert worker._process.wait(timeout=60) == 0


def test_an_interrupt_of_the_terminal_is_left_to_the_parent():
    with start_worker("one") as worker:
        worker.ask({"do": "memory"})
        worker._process.send_signal(signal.SIGINT)

        assert set(worker.ask({"do": "memory"})) == {"peak_bytes"}


def test_a_process_that_is_killed_is_named():
    with start_worker("the peer") as worker:
        worker.ask({"do": "memory"})
        worker._process.kill()
        with pytest.raises(UsageError, match="`the peer`: its process ended by signal 9") as caught:
            worker.ask({"do": "memory"})

    assert "memory" in str(caught.value)


def test_an_error_there_is_the_same_error_here(tmp_path):
    from safetensors.torch import save_file

    save_file({}, tmp_path / "inputs")
    request = {
        "do": "open",
        "runtime": "no such",
        "inputs": str(tmp_path / "inputs"),
        "methods": {},
    }
    with (
        start_worker("one") as worker,
        pytest.raises(UsageError, match="`one`: `no such`: no such runtime"),
    ):
        worker.ask(request)


def test_errors_are_answers():
    requests, replies = io.BytesIO(), io.BytesIO()
    write_message(requests, {"do": "run", "where": "unet.forward", "call": 0})
    write_message(requests, {"do": "memory"})
    requests.seek(0)
    serve(requests, replies)
    replies.seek(0)
    first, second = read_message(replies), read_message(replies)

    assert (first["error"], first["message"]) == ("UsageError", "KeyError: 'unet.forward'")
    assert "peak_bytes" in second


def test_the_kind_of_an_error_survives(monkeypatch):
    def missing(_runtime):
        raise RuntimeMissing("`x` is not installed", hint="install it")

    monkeypatch.setattr("qdx.backends.registry.get_backend", missing)
    requests, replies = io.BytesIO(), io.BytesIO()
    write_message(requests, {"do": "open", "runtime": "x"})
    requests.seek(0)
    serve(requests, replies)
    replies.seek(0)

    assert read_message(replies) == {
        "error": "RuntimeMissing",
        "message": "`x` is not installed",
        "hint": "install it",
    }
