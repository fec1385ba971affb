"""A Redis server, where processes tell each other how the hosts of sources are doing."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.schema import CachedSchema


class RedisServer(CachedSchema, Block):
    """Address of a Redis server, with its password in it."""

    _block_type_name = "ETL Redis Server"
    _block_type_slug = "etl-redis-server"

    url: SecretStr = Field(description="E.g. rediss://:password@redis.example.org:6379/0.")
