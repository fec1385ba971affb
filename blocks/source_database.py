"""A database that datasets are read from: anything SQLAlchemy has a dialect for."""

from __future__ import annotations

import sqlite3
from typing import Any, Self
from urllib.parse import quote

from prefect.blocks.core import Block
from prefect_aws.secrets_manager import AwsSecret
from pydantic import Field, SecretStr, model_validator
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.engine import make_url

from blocks.aws_secret import login
from blocks.schema import CachedSchema

SECONDS_BEFORE_PROBING_AN_IDLE_PEER = 30


class SourceDatabase(CachedSchema, Block):
    """A source database; give it a role that may only read."""

    _block_type_name = "ETL Source Database"
    _block_type_slug = "etl-source-database"

    drivername: str = Field(
        "postgresql+psycopg2", description="SQLAlchemy dialect and driver, e.g. mysql+pymysql."
    )
    host: str | None = None
    port: int | None = None
    database: str | None = Field(None, description="Database, or the file of SQLite.")
    username: str | None = None
    password: SecretStr | None = None
    aws_secret: AwsSecret | None = Field(
        None,
        description="Where the password is instead: a secret that is the password, or a JSON object "
        "with password and, if it counts, username.",
    )
    query: dict[str, str] = Field(default_factory=dict, description="Options of the URL, e.g. TLS.")
    pool_size: int = Field(4, ge=1, le=50, description="Most connections of one process.")
    connect_timeout: int = Field(10, ge=1, description="Seconds to wait for a connection.")
    lock_timeout: int = Field(60, ge=1, description="Seconds to wait for a lock.")
    statement_timeout: int = Field(
        3600, ge=1, description="Seconds a statement may take; reading a partition is one."
    )

    @model_validator(mode="after")
    def _has_one_password(self) -> Self:
        if self.password is not None and self.aws_secret is not None:
            raise ValueError("give the password, or the aws_secret that has it; not both")
        return self

    def url(self) -> URL:
        """Return the connection's URL; its repr hides the password.

        Raises:
            SecretError: AWS Secrets Manager does not give the secret.
        """
        username = self.username
        password = self.password.get_secret_value() if self.password else None
        if self.aws_secret is not None:
            username, password = login(self.aws_secret, username)
        return URL.create(
            self.drivername,
            username=username,
            password=password,
            host=self.host,
            port=self.port,
            database=self.database,
            query=self.query,
        )

    @classmethod
    def from_url(cls, url: str) -> SourceDatabase:
        """Build the block from a SQLAlchemy URL."""
        parts = make_url(url)
        return cls(
            drivername=parts.drivername,
            host=parts.host,
            port=parts.port,
            database=parts.database,
            username=parts.username,
            password=SecretStr(parts.password) if parts.password else None,
            query={name: str(value) for name, value in parts.query.items()},
        )

    def get_engine(self) -> Engine:
        """Return an engine with a bounded pool whose connections are checked before use.

        Its connections only read, as far as the database can be told so. Give the block a role that
        may not write in any case.
        """
        arguments: dict[str, Any] = {"pool_size": self.pool_size, "max_overflow": 0}
        backend = self.url().get_backend_name()
        if backend == "postgresql":
            arguments["connect_args"] = self._postgres_arguments()
        elif backend in ("mysql", "mariadb"):
            arguments["connect_args"] = self._mysql_arguments()
        elif backend == "sqlite":
            arguments = self._sqlite_arguments()
        return create_engine(self.url(), pool_pre_ping=True, hide_parameters=True, **arguments)

    def _postgres_arguments(self) -> dict[str, Any]:
        settings = {
            "default_transaction_read_only": "on",
            "TimeZone": "UTC",
            "client_encoding": "UTF8",
            "lock_timeout": f"{self.lock_timeout}s",
            "statement_timeout": f"{self.statement_timeout}s",
        }
        return {
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
            "connect_timeout": self.connect_timeout,
            "application_name": "etl/source",
            "keepalives": 1,
            "keepalives_idle": SECONDS_BEFORE_PROBING_AN_IDLE_PEER,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        }

    def _mysql_arguments(self) -> dict[str, Any]:
        if self.url().get_driver_name() != "pymysql":
            return {}
        return {
            "connect_timeout": self.connect_timeout,
            # A server that says nothing for this long is gone.
            "read_timeout": self.statement_timeout,
            "init_command": f"SET SESSION lock_wait_timeout = {self.lock_timeout}, "
            f"innodb_lock_wait_timeout = {self.lock_timeout}",
        }

    def _sqlite_arguments(self) -> dict[str, Any]:
        """Open the file for reading only: SQLite makes an empty one of a name that is not there."""
        if not self.database or self.database == ":memory:":
            return {}
        address = f"file:{quote(self.database)}?mode=ro"

        def opened() -> sqlite3.Connection:
            return sqlite3.connect(
                address, uri=True, check_same_thread=False, timeout=self.lock_timeout
            )

        return {"creator": opened}
