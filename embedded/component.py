"""What the supervisor must know of a server."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Ports = Mapping[str, int]


class EmbeddedServerError(RuntimeError):
    """A server of the dev environment did not come up."""


@dataclass(frozen=True)
class Component:
    """One server: how it is started, and how one knows that it is ready.

    Attributes:
        name: Name, also of its log and its state file.
        ports: Name of each port it listens on → the preferred one, 0 for any.
        command: Gives the command line for the ports that were found free. No secrets in it.
        ready: Tells whether the server answers.
        environment: Gives variables beside this process' own; secrets go here.
        drop_variables: Beginnings of names of this process' variables that it must not see.
        prepare: Runs before every start, e.g. initdb.
        stop_signal: What asks it to end.
        stop_seconds: How long it may take before it is killed.
        start_seconds: How long it may take to be ready.
        needs: Names of the components that must be ready before it, and are stopped after it.
        paired_port_offset: The server opens another port this much above each of its ports.
    """

    name: str
    ports: Mapping[str, int]
    command: Callable[[Ports], list[str]]
    ready: Callable[[Ports], bool]
    environment: Callable[[Ports], dict[str, str]] = field(default=lambda _ports: {})
    drop_variables: tuple[str, ...] = ()
    prepare: Callable[[], None] = field(default=lambda: None)
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 10
    start_seconds: float = 60
    needs: tuple[str, ...] = ()
    paired_port_offset: int = 0
