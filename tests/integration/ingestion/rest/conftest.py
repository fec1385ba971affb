"""What the tests of REST sources share."""

from tests.integration.ingestion.rest.support import api

__all__ = ["api"]
