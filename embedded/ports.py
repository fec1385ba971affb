"""Free ports of the loopback interface, and whether somebody answers on one."""

from __future__ import annotations

import random
import socket
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping

LOCALHOST = "127.0.0.1"
# Below the range from which systems take the ports of outgoing connections (32768 on Linux), also
# with SeaweedFS' pair 10,000 above: so that a remembered port is still free the next time.
PORT_RANGE = range(10_240, 22_240)
HTTP_OK = 200
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def choose_ports(
    wished: Mapping[str, int], paired_offset: int, others: Collection[int]
) -> dict[str, int]:
    """Give every name its wished port if that is usable, any other if not.

    Args:
        wished: Name → wished port, 0 for any.
        paired_offset: The server opens another port this much above each of its ports.
        others: Ports promised to other servers, who may not listen yet.
    """
    chosen: dict[str, int] = {}
    taken = set(others) | {port + paired_offset for port in others}
    for name, port in wished.items():
        usable = port_is_usable(port, paired_offset, taken)
        chosen[name] = port if usable else free_port(paired_offset, taken)
        taken |= {chosen[name], chosen[name] + paired_offset}
    return chosen


def free_port(paired_offset: int = 0, taken: Collection[int] = ()) -> int:
    """Return a port that nobody uses, nor the one ``paired_offset`` above it.

    Args:
        paired_offset: The server opens another port this much above; 0 for none.
        taken: Ports that are promised to others, who may not listen yet.
    """
    for port in random.sample(PORT_RANGE, len(PORT_RANGE)):
        if port_is_usable(port, paired_offset, taken):
            return port
    raise OSError(f"no port between {PORT_RANGE.start} and {PORT_RANGE.stop} is free")


def port_is_usable(port: int, paired_offset: int = 0, taken: Collection[int] = ()) -> bool:
    """Tell whether a server may have a port and the one paired with it."""
    pair = {port, port + paired_offset}
    return bool(port) and pair.isdisjoint(taken) and all(port_is_free(each) for each in pair)


def port_is_free(port: int) -> bool:
    """Tell whether a server can listen on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError:
            return False
        return True


def port_answers(port: int) -> bool:
    """Tell whether something accepts connections on a port of the loopback interface."""
    try:
        with socket.create_connection((LOCALHOST, port), timeout=1):
            return True
    except OSError:
        return False


def http_answers(url: str) -> bool:
    """Tell whether a URL of this machine answers 200; a proxy of the environment is not asked."""
    try:
        with _direct.open(url, timeout=2) as answer:
            return bool(answer.status == HTTP_OK)
    except (urllib.error.URLError, OSError, ValueError):
        return False
