"""A database that datasets are read from: anything SQLAlchemy has a dialect for."""

from __future__ import annotations

from typing import Any

from prefect.blocks.core import Block
from pydantic import Field, SecretStr
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.engine import make_url

POSTGRES_READ_ONLY = "-c default_transaction_read_only=on -c TimeZone=UTC"


class SourceDatabase(Block):
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
    query: dict[str, str] = Field(default_factory=dict, description="Options of the URL, e.g. TLS.")
    pool_size: int = Field(4, ge=1, le=50, description="Most connections of one process.")

    def url(self) -> URL:
        """Return the connection's URL; its repr hides the password."""
        return URL.create(
            self.drivername,
            username=self.username,
            password=self.password.get_secret_value() if self.password else None,
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
        """Return an engine with a bounded pool whose connections are checked before use."""
        arguments: dict[str, Any] = {}
        if self.drivername.startswith("postgresql"):
            arguments["connect_args"] = {
                "options": POSTGRES_READ_ONLY,
                "connect_timeout": 10,
                "application_name": "etl/source",
            }
        if not self.drivername.startswith("sqlite"):
            arguments |= {"pool_size": self.pool_size, "max_overflow": 0}
        return create_engine(self.url(), pool_pre_ping=True, hide_parameters=True, **arguments)
