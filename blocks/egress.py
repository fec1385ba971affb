"""Where requests may go: each address is checked, and the one that was checked is connected to.

A name is resolved once per connection. What is checked is what is used, so a name server that changes
its answer in between gains nothing. A request as a whole has a time limit, which ends an answer that
trickles in byte by byte as well.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import httpcore
import httpx

Resolve = Callable[[str, int], list[str]]


def _networks(*texts: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_METADATA = _networks(
    "169.254.0.0/16",  # link-local, with the metadata services of most clouds
    "100.100.100.200/32",  # Alibaba Cloud, in a private range
    "fd00:ec2::/32",  # AWS, in a private range
    "168.63.129.16/32",  # Azure's host
)
_PRIVATE = _networks(
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
)
_NEVER = _networks(
    "fe80::/10",
    "fec0::/10",
    "::/96",  # IPv4-compatible, obsolete
    "::ffff:0:0/96",  # IPv4-mapped
    "64:ff9b::/96",  # NAT64: any IPv4 address in disguise
    "64:ff9b:1::/48",
    "2002::/16",  # 6to4, the same
    "2001::/32",  # Teredo, the same
)


class Reach(Enum):
    """What kind of address it is."""

    PUBLIC = "public"
    PRIVATE = "private"
    NEVER = "never"
    """Link-local, multicast, reserved, or another address in disguise."""


class AddressRefusedError(Exception):
    """A name leads to an address that requests may not go to.

    Args:
        host: The name.
        address: Its address.
        reach: What kind of address it is.
    """

    def __init__(self, host: str, address: str, reach: Reach) -> None:
        super().__init__(f"{host} is {address}")
        self.host = host
        self.address = address
        self.reach = reach


def reach_of(address: str) -> Reach:
    """Say what kind of address an IP address is."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if any(ip in network for network in _METADATA):
        return Reach.NEVER
    if any(ip in network for network in _PRIVATE):
        return Reach.PRIVATE
    if ip.is_multicast or not ip.is_global or any(ip in network for network in _NEVER):
        return Reach.NEVER
    return Reach.PUBLIC


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name, in the order of the operating system's preference."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"{host} is not known") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Deadline(threading.local):
    """When the request of this thread must be over."""

    at: float = float("inf")

    def limit(self, timeout: float | None, too_late: type[Exception]) -> float | None:
        """Return the seconds that one operation may take.

        Raises:
            Exception: ``too_late``, if there are none left.
        """
        left = self.at - time.monotonic()
        if left <= 0:
            raise too_late("the request took too long")
        if left == float("inf"):
            return timeout
        return left if timeout is None else min(left, timeout)


class _BoundedStream(httpcore.NetworkStream):
    """A connection whose every operation ends with the request's time."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.limit(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.limit(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.limit(timeout, httpcore.ConnectTimeout)
        return _BoundedStream(
            self._stream.start_tls(ssl_context, server_hostname, left), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to an address of the name that was checked; TLS still verifies the name."""

    def __init__(self, deadline: _Deadline, resolve: Resolve, *, allow_private: bool) -> None:
        self._deadline = deadline
        self._resolve = resolve
        self._allow_private = allow_private
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._resolve(host, port)
        for address in addresses:
            reach = reach_of(address)
            if reach is Reach.NEVER or (reach is Reach.PRIVATE and not self._allow_private):
                raise AddressRefusedError(host, address, reach)
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            left = self._deadline.limit(timeout, httpcore.ConnectTimeout)
            try:
                stream = self._plain.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _BoundedStream(stream, self._deadline)
        raise failure


class CheckedTransport(httpx.HTTPTransport):
    """A transport that goes to checked addresses only, and ends each request in time.

    Args:
        allow_private: Loopback and the addresses of private networks are allowed as well.
        total_seconds: A request, its answer included, may take this long.
        limits: Number of connections.
        resolve: Gives the addresses of a name.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        total_seconds: float,
        limits: httpx.Limits,
        resolve: Resolve = resolve,
    ) -> None:
        super().__init__(limits=limits)
        self._total_seconds = total_seconds
        self._deadline = _Deadline()
        # httpx makes a pool of its own and has no argument for the network below it; httpcore has.
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            network_backend=_CheckedBackend(self._deadline, resolve, allow_private=allow_private),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the time for it and its answer begins now."""
        self._deadline.at = time.monotonic() + self._total_seconds
        return super().handle_request(request)
