"""What bootstrap has made on a server, by id: nothing else is ever removed."""

from __future__ import annotations

from typing import cast

from prefect.blocks.core import Block
from pydantic import Field

from blocks.schema import CachedSchema
from tasks.model.errors import ConfigError


class Inventory(CachedSchema, Block):
    """What 'dpp bootstrap' has made for an environment. It is its own; do not edit it."""

    _block_type_name = "ETL Bootstrap Inventory"
    _block_type_slug = "etl-bootstrap-inventory"

    made: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="Ids, by kind and name."
    )


def read_inventory(environment: str) -> dict[str, dict[str, str]]:
    """Return the ids of what was made for an environment, by kind and name."""
    try:
        return cast(Inventory, Inventory.load(environment)).made
    except ValueError as error:
        if "Unable to find block document" in str(error):
            return {}
        raise ConfigError(
            f"block etl-bootstrap-inventory/{environment} cannot be read",
            "delete it: what was made before is then left alone by --prune",
        ) from None


def write_inventory(environment: str, made: dict[str, dict[str, str]]) -> None:
    """Keep the ids of what was made."""
    Inventory(made=made).save(environment, overwrite=True)
