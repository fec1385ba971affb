"""The warehouse: a PostgreSQL database, reached through a bounded pool of checked connections.

It may be behind a pooler that gives a server connection per transaction (PgBouncer): nothing of ours
outlives a transaction, but what ``get_direct_engine`` is for.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from prefect.blocks.core import Block
from prefect_aws.secrets_manager import AwsSecret
from pydantic import Field, SecretStr, model_validator
from sqlalchemy import URL, Engine, NullPool, create_engine

from blocks.aws_secret import login
from blocks.pool import WatchedPool
from blocks.postgres_session import connector
from blocks.schema import CachedSchema

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

SECONDS_BEFORE_PROBING_AN_IDLE_PEER = 30
MILLISECONDS_BEFORE_UNHEARD_DATA_ENDS_A_CONNECTION = 60_000
"""The same 60 seconds after which probes end an idle one."""


class PostgresConnection(CachedSchema, Block):
    """What every PostgreSQL connection of ours has in common."""

    host: str = Field("localhost", description="Host name or address.")
    port: int = Field(5432, ge=1, le=65535)
    database: str = Field(description="Name of the database.")
    username: str = Field(description="Role to log in as.")
    password: SecretStr | None = Field(None, description="Its password; or else aws_secret.")
    aws_secret: AwsSecret | None = Field(
        None,
        description="Where the password is instead: a secret that is the password, or a JSON object "
        "with password and, if it counts, username.",
    )
    sslmode: SslMode = Field(
        "prefer", description="Use verify-full wherever the network is not your own."
    )
    sslrootcert: str | None = Field(None, description="File of the CA that signs the server.")
    connect_timeout: int = Field(10, ge=1, description="Seconds to wait for a connection.")

    @model_validator(mode="after")
    def _has_a_password(self) -> Self:
        if (self.password is None) == (self.aws_secret is None):
            raise ValueError("give the password, or the aws_secret that has it")
        return self

    def logged_in(self) -> Self:
        """Return the block with the user and the password that hold now, wherever they are kept.

        Raises:
            SecretError: AWS Secrets Manager does not give the secret.
        """
        if self.aws_secret is None:
            return self
        username, password = login(self.aws_secret, self.username)
        found = {"username": username, "password": SecretStr(password), "aws_secret": None}
        return self.model_copy(update=found)

    def url(self) -> URL:
        """Return the connection's URL; its repr hides the password."""
        block = self.logged_in()
        assert block.password is not None
        return URL.create(
            "postgresql+psycopg2",
            username=block.username,
            password=block.password.get_secret_value(),
            host=self.host,
            port=self.port,
            database=self.database,
        )

    def connect_args(self, application_name: str) -> dict[str, Any]:
        """Return libpq parameters: TLS, keepalives, and a name that shows in pg_stat_activity."""
        arguments: dict[str, Any] = {
            "sslmode": self.sslmode,
            "connect_timeout": self.connect_timeout,
            "application_name": application_name[:63],
            "keepalives": 1,
            "keepalives_idle": SECONDS_BEFORE_PROBING_AN_IDLE_PEER,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": MILLISECONDS_BEFORE_UNHEARD_DATA_ENDS_A_CONNECTION,
        }
        if self.sslrootcert:
            arguments["sslrootcert"] = self.sslrootcert
        return arguments


class WarehouseCredentials(PostgresConnection):
    """The PostgreSQL database that datasets are loaded into."""

    _block_type_name = "ETL Warehouse Credentials"
    _block_type_slug = "etl-warehouse-credentials"

    direct_host: str | None = Field(
        None, description="Where host is a pooler: the server itself, for building indexes."
    )
    direct_port: int | None = Field(
        None, ge=1, le=65535, description="Where host is a pooler: the port of the server itself."
    )
    pool_size: int = Field(4, ge=1, le=50, description="Most connections of one process.")
    pool_timeout: int = Field(60, ge=1, description="Seconds to wait for a free connection.")
    lock_timeout: int = Field(60, ge=1, description="Seconds to wait for locks of others, in all.")
    statement_timeout: int = Field(3600, ge=1, description="Seconds a statement may take.")
    idle_in_transaction_timeout: int = Field(
        60, ge=1, description="Seconds after which the server ends a silent transaction."
    )

    def session_settings(self) -> dict[str, str]:
        """Return the settings under which everything runs.

        UTC, a fixed search path, and time limits: without them a COMMIT that never arrives would
        hold its locks for ever.
        """
        return {
            "TimeZone": "UTC",
            "search_path": "pg_catalog",
            "lock_timeout": f"{self.lock_timeout}s",
            "statement_timeout": f"{self.statement_timeout}s",
            "idle_in_transaction_session_timeout": f"{self.idle_in_transaction_timeout}s",
        }

    @property
    def answer_seconds(self) -> int:
        """Seconds after which a server that does not answer is given up."""
        return self.statement_timeout + self.connect_timeout

    def get_engine(self, application_name: str = "etl") -> Engine:
        """Return an engine with a bounded pool whose connections are checked before use.

        Each transaction begins with our settings: a pooler in between keeps none of a session.
        """
        return create_engine(
            self.url(),
            poolclass=WatchedPool,
            pool_size=self.pool_size,
            max_overflow=0,
            pool_timeout=self.pool_timeout,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={
                **self.connect_args(application_name),
                "connection_factory": connector(self.session_settings(), self.answer_seconds),
            },
        )

    def get_direct_engine(self, application_name: str = "etl") -> Engine:
        """Return an engine for what is no transaction: it opens a connection, and closes it.

        It goes past a pooler where the block says how. Settings are those of its sessions.
        """
        direct = {"host": self.direct_host, "port": self.direct_port}
        there = self.model_copy(update={name: to for name, to in direct.items() if to is not None})
        options = " ".join(f"-c {name}={value}" for name, value in self.session_settings().items())
        return create_engine(
            there.url(),
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={
                **there.connect_args(application_name),
                "options": options,
                "connection_factory": connector(None, self.answer_seconds),
            },
        )
