"""The stream that feeds COPY: when it gives bytes, when it ends, when it gives up."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pyarrow as pa
import pytest

from tasks.loading.staging import _CopyAbandoned, _EncodedStream, _Refusal

SCHEMA = pa.schema([("a", pa.int64())])


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection."""
    ours, servers = socket.socketpair()
    yield ours, servers
    ours.close()
    servers.close()


# What the server has sent so far, and whether that is a refusal.
ANSWERS = [
    (b"", False),
    (b"E\x00\x00\x00\x20SERROR", True),
    (b"N\x00\x00\x00\x20SNOTICE", False),
    (b"S\x00\x00\x00\x20TimeZone", False),
    (b"\x17\x03\x03\x00E", False),  # encrypted: nobody can tell
]


@pytest.mark.parametrize(("sent", "refused"), ANSWERS)
def test_refusal_is_seen_and_left_to_the_driver(
    sockets: tuple[socket.socket, socket.socket], sent: bytes, refused: bool
) -> None:
    """An error of the server is noticed by its first byte, and no byte is taken away."""
    ours, servers = sockets
    servers.sendall(sent)
    with _Refusal(ours.fileno()) as refusal:
        assert [refusal.is_there(), refusal.is_there()] == [refused, refused]
    if sent:
        assert ours.recv(100) == sent


def test_closed_connection_is_no_refusal(sockets: tuple[socket.socket, socket.socket]) -> None:
    """That the connection is gone, the driver tells."""
    ours, servers = sockets
    servers.close()
    with _Refusal(ours.fileno()) as refusal:
        assert not refusal.is_there()


def _endless() -> Iterator[pa.RecordBatch]:
    while True:
        yield pa.record_batch([pa.array(range(1000))], schema=SCHEMA)


def _all_of(size: int) -> bytes:
    batches = (pa.record_batch([pa.array([n] * 100)], schema=SCHEMA) for n in range(20))
    with _EncodedStream(SCHEMA, batches, lambda: None) as stream:
        pieces = list(iter(lambda: stream.read(size), b""))
    assert size < 0 or max(map(len, pieces)) <= size
    return b"".join(pieces)


def test_stream_is_the_same_in_pieces_of_any_size() -> None:
    """The driver may ask for less than a chunk has, or for more."""
    whole = _all_of(-1)
    assert len(whole) > 20 * 100 * 14
    assert {_all_of(size) == whole for size in (7, 1400, 1 << 20)} == {True}


def test_refused_stream_sends_no_more() -> None:
    """Once the server has refused, the next chunk is not given, and the thread ends."""
    answers = iter([False, False, True])
    stream = _EncodedStream(SCHEMA, _endless(), lambda: None, lambda: next(answers))
    with stream, pytest.raises(_CopyAbandoned):
        while stream.read(1 << 30):
            pass
    assert not stream._thread.is_alive()


def test_error_of_the_observer_is_its_own() -> None:
    """What is raised where the first chunk is announced is not taken for an error of the data."""

    def observer() -> None:
        raise KeyError("observer")

    stream = _EncodedStream(SCHEMA, _endless(), observer)
    with stream:
        with pytest.raises(_CopyAbandoned):
            stream.read(10)
        with pytest.raises(KeyError, match="observer"):
            stream.raise_own_error()
