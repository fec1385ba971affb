"""Faults are injected into the same world that the integration tests load into."""

from tests.integration.loading.support import world
from tests.server import fragile

__all__ = ["fragile", "world"]
