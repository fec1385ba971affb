"""What a process of the tests imports only when it opens the warehouse, imported before it is forked."""

from __future__ import annotations

from pydantic import SecretStr

from blocks.warehouse import WarehouseCredentials
from tests.faults import campaign, soak  # noqa: F401 - what the processes run

# Blocks and drivers bring most of what they need at first use; nothing is connected to.
WarehouseCredentials(
    host="127.0.0.1", port=1, database="none", username="nobody", password=SecretStr("none")
).get_engine("preloaded")
