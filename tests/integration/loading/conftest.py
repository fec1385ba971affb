"""What the tests of loading share."""

from tests.integration.loading.support import world

__all__ = ["world"]
