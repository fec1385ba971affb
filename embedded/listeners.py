"""Whose port is it? A probe alone cannot tell our server from somebody else's on the same port.

Two checkouts that start at the same moment may both find a port free; the slower one's probe would
be answered by the quicker one's server.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

LISTENING = "0A"


def listens_elsewhere(session: int, ports: Collection[int]) -> bool:
    """Tell whether somebody outside a session of processes listens on one of the ports.

    A server leads its own session. Where this cannot be seen (no /proc, no right), the answer is
    no: then the probe has to do.
    """
    listeners = {inode for port, inode in listening_sockets() if port in ports}
    if not listeners:
        return False
    own: set[str] = set()
    try:
        for process in _processes_of(session):
            own |= _sockets_of(process)
            if listeners <= own:
                return False
    except PermissionError:  # root in a container without CAP_SYS_PTRACE, about another user's
        return False
    return True


def listening_sockets() -> Iterator[tuple[int, str]]:
    """Give port and inode of every TCP socket of this machine that listens."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING:
                    yield int(fields[1].rpartition(":")[2], 16), fields[9]


def _processes_of(session: int) -> Iterator[Path]:
    yield Path(f"/proc/{session}")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            if fields[3] == str(session):
                yield stat.parent


def _sockets_of(process: Path) -> set[str]:
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in os.listdir(process / "fd"):  # noqa: PTH208 - names only, and quick
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                target = os.readlink(process / "fd" / descriptor)  # noqa: PTH115
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found
