"""What the tests of loading share. ``warehouse`` may come from one fixture of the whole suite."""

from tests.integration.loading.server import postgres_port, warehouse
from tests.integration.loading.support import world

__all__ = ["postgres_port", "warehouse", "world"]
