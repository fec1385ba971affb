"""Opens what a dataset needs, from the Prefect blocks that the environment and the dataset name."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self, TypeVar, cast

import httpx
from obstore.store import ObjectStore
from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_URL
from prefect_aws import S3Bucket
from pydantic import SecretStr, ValidationError
from sqlalchemy import Engine
from sqlalchemy.exc import NoSuchModuleError

from blocks.api_client import ApiClient
from blocks.aws_secret import SecretRefusedError, SecretUnavailableError, SecretWrongError
from blocks.lake import Lake
from blocks.object_store import LakeStorage, s3_store
from blocks.privacy import PrivacyKeys
from blocks.redis_server import RedisServer
from blocks.rest_api import RestApiCredentials
from blocks.source_database import SourceDatabase
from blocks.warehouse import WarehouseCredentials
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError, CredentialsRejected, SourceUnavailable
from tasks.model.source import S3Source
from tasks.protection import UNPROTECTED, Protection, pii_columns

BlockT = TypeVar("BlockT", bound=Block)
LoadBlock = Callable[[type[Any], str], Any]


BLOCK_SECONDS = 30.0
"""How long a block is used before it is asked for again: so long a rotated secret may be unknown."""
_blocks: dict[tuple[str, type[Block], str], tuple[float, Block]] = {}


def load_from_prefect(block_class: type[BlockT], name: str) -> BlockT:
    """Load a block document from the Prefect server, or one that was loaded just now.

    Every stage of every partition needs the same two or three: to ask for them each time would cost
    more than all else that Prefect does for a partition.

    Raises:
        ConfigError: There is no such block, or it is not what it should be.
        SourceUnavailable: The Prefect server does not answer.
    """
    key = (str(PREFECT_API_URL.value()), block_class, name)
    loaded, block = _blocks.get(key, (-BLOCK_SECONDS, None))
    if block is None or time.monotonic() - loaded > BLOCK_SECONDS:
        block = _ask_prefect(block_class, name)
        _blocks[key] = (time.monotonic(), block)
    return cast(BlockT, block)


def forget_blocks() -> None:
    """Ask for every block again: a run begins, and somebody may have changed one since the last."""
    _blocks.clear()


def _ask_prefect(block_class: type[BlockT], name: str) -> BlockT:
    """Load a block document from the Prefect server.

    Raises:
        ConfigError: There is no such block, or it is not what it should be.
        SourceUnavailable: The Prefect server does not answer.
    """
    try:
        return cast(BlockT, block_class.load(name))
    except ValueError as error:
        if "Unable to find block document" not in str(error):
            raise ConfigError(_unfit(block_class, name)) from None
        raise ConfigError(
            f"no block {name!r} of type {block_class.get_block_type_slug()!r} on the Prefect server",
            "create it in the UI under Blocks, or with dpp bootstrap",
        ) from None
    except (httpx.TransportError, RuntimeError) as error:
        raise SourceUnavailable(
            f"the Prefect server does not answer ({type(error).__name__})",
            "start it with 'dpp up', or set PREFECT_API_URL",
        ) from None


def _unfit(block_class: type[Block], name: str) -> str:
    return f"block {name!r} cannot be read as a {block_class.get_block_type_slug()}"


@dataclass(frozen=True)
class Connections:
    """The clients that one piece of work needs; those of sources are closed with it.

    The warehouse's engine is shared within the process and stays open.

    Attributes:
        environment: Names the blocks of warehouse and lake.
        load: Gives the block of a class and a name; from the Prefect server unless told otherwise.
    """

    environment: Environment
    load: LoadBlock = field(default=load_from_prefect)
    _opened: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def warehouse(self) -> Engine:
        """Open the warehouse; engines are shared within the process."""
        block = self.load(WarehouseCredentials, self.environment.warehouse_block)
        with explained_secrets():
            block = block.logged_in()
        return _warehouse_engine(block.model_dump_json(), block.password.get_secret_value())

    def warehouse_itself(self) -> Engine:
        """Open the warehouse past any pooler, for work that is no transaction."""
        block = self.load(WarehouseCredentials, self.environment.warehouse_block)
        with explained_secrets():
            return cast(Engine, block.get_direct_engine("etl"))

    def lake(self) -> Lake:
        """Open the lake."""
        block = self.load(LakeStorage, self.environment.lake_block)
        try:
            lake: Lake = block.get_lake()
        except ValueError as error:
            raise ConfigError(f"block {self.environment.lake_block!r}: {error}") from None
        return lake

    def object_store(self, source: S3Source) -> ObjectStore:
        """Open the bucket of a source's S3Bucket block."""
        bucket = self.load(S3Bucket, source.block)
        key: SecretStr | None = None
        if source.customer_key_block is not None:
            key = SecretStr(str(self.load(Secret, source.customer_key_block).get()))
        return s3_store(bucket, requester_pays=source.requester_pays, customer_key=key)

    def redis_url(self) -> str | None:
        """Return the address of the environment's Redis server, None if it has none."""
        name = self.environment.redis_block
        if name is None:
            return None
        url: str = self.load(RedisServer, name).url.get_secret_value()
        return url

    def protection(self, spec: DatasetSpec) -> Protection:
        """Return what protects the columns of a dataset that are marked ``pii``.

        Raises:
            ConfigError: There are such columns, and no key.
        """
        columns = pii_columns(spec)
        if not columns:
            return UNPROTECTED
        name = self.environment.privacy_block
        try:
            keys = PrivacyKeys.from_variable() if name is None else self.load(PrivacyKeys, name)
        except ValidationError:
            raise ConfigError(
                "DPP_PRIVACY_KEY is too short for a key",
                "make one of 64 characters with: openssl rand -hex 32",
            ) from None
        return Protection(columns, keys.get_privacy() if keys else None)

    def rest_client(self, name: str) -> ApiClient:
        """Open the API of a RestApiCredentials block."""
        with explained_secrets():
            client: ApiClient = self.load(RestApiCredentials, name).get_client()
        self._opened.callback(client.close)
        return client

    def database(self, name: str) -> Engine:
        """Open the database of a SourceDatabase block."""
        block = self.load(SourceDatabase, name)
        try:
            with explained_secrets():
                engine: Engine = block.get_engine()
        except (NoSuchModuleError, ImportError):
            raise ConfigError(
                f"block {name!r}: the driver of {block.drivername!r} is not installed",
                "install it, for MySQL with: pip install 'data-processing-pipeline[mysql]'; "
                "or correct drivername",
            ) from None
        self._opened.callback(engine.dispose)
        return engine


@lru_cache(maxsize=4)
def _warehouse_engine(document: str, password: str) -> Engine:
    """Keep one pool a process and warehouse: a bounded number of connections in all."""
    fields = json.loads(document) | {"password": password}  # the document has a mask for it
    del fields["block_type_slug"]  # else Prefect imports all its collections to look it up
    return WarehouseCredentials(**fields).get_engine("etl")


@contextmanager
def explained_secrets() -> Iterator[None]:
    """Turn errors of AWS Secrets Manager into ours.

    Raises:
        ConfigError: There is no such secret, or it is not what a block needs.
        CredentialsRejected: This process may not read it.
        SourceUnavailable: It may be read later.
    """
    try:
        yield
    except SecretRefusedError as error:
        raise CredentialsRejected(
            str(error), "allow secretsmanager:GetSecretValue to the role of this process"
        ) from None
    except SecretWrongError as error:
        raise ConfigError(str(error), "create it there, or correct the block") from None
    except SecretUnavailableError as error:
        raise SourceUnavailable(str(error), "set AWS_REGION and a role; else try again") from None
