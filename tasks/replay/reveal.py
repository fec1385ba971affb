"""Protected values are revealed only where the environment says so, and the log says to whom."""

from __future__ import annotations

import structlog

from tasks.connections import Connections
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError
from tasks.protection import Protection

log = structlog.get_logger("dpp.replay")


def permitted_protection(
    environment: Environment, connections: Connections, spec: DatasetSpec, person: str
) -> Protection:
    """Return what opens protected values, if the environment permits it.

    Raises:
        ConfigError: It does not, or there is no key.
    """
    if not environment.reveal_pii:
        raise ConfigError(
            f"environment {environment.name} does not permit --reveal",
            "who may decide it sets reveal_pii: true in deployments/environments; a replay needs no "
            "--reveal: cells left as they are keep their value",
        )
    log.warning("quarantine.revealed", dataset=spec.name, person=person)
    return connections.protection(spec)
