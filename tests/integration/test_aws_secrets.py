"""Passwords that stay in AWS Secrets Manager: read when they are needed, rotated without a deployment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg2 import sql
from pydantic import SecretStr, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from blocks.aws_secret import forget_secrets
from blocks.rest_api import RestApiCredentials
from blocks.source_database import SourceDatabase
from blocks.warehouse import WarehouseCredentials
from deployments.bootstrap.values import Values
from embedded.postgres import connect
from tasks.connections import Connections
from tasks.environments import load_environment
from tasks.model.errors import ConfigError, SourceUnavailable
from tests.secrets_manager import SecretsManager, running_secrets_manager
from tests.server import PASSWORD

ROLES = ("etl_a", "etl_b")


@pytest.fixture(scope="module")
def aws() -> Iterator[SecretsManager]:
    with running_secrets_manager() as server:
        yield server


@pytest.fixture
def roles(warehouse: WarehouseCredentials) -> Iterator[Any]:
    """Two roles that can log in, and a function that changes the password of one."""
    admin = connect(warehouse.port, PASSWORD, "postgres")
    admin.autocommit = True

    def give(role: str, password: str) -> None:
        query = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}")
        with admin.cursor() as cursor:
            cursor.execute(query.format(sql.Identifier(role), sql.Literal(password)))

    with admin.cursor() as cursor:
        for role in ROLES:
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    forget_secrets()
    yield give
    with admin.cursor() as cursor:
        for role in ROLES:
            cursor.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    admin.close()


def user_of(connections: Connections) -> str:
    engine = connections.warehouse()
    with engine.connect() as connection:
        user = connection.execute(text("SELECT current_user")).scalar_one()
    engine.dispose()
    return str(user)


def test_rotated_password_is_taken_by_the_next_run(
    aws: SecretsManager, warehouse: WarehouseCredentials, roles: Any
) -> None:
    """First the password alone, then RDS' JSON with another password and another user."""
    block = warehouse.model_copy(
        update={"username": "etl_a", "password": None, "aws_secret": aws.block("etl/warehouse")}
    )
    connections = Connections(load_environment("dev"), lambda _class, _name: block)
    roles("etl_a", "first")
    aws.put("etl/warehouse", "first")
    assert user_of(connections) == "etl_a"
    roles("etl_a", "second")
    roles("etl_b", "third")
    with pytest.raises(OperationalError):  # within the minute the old one is used
        user_of(connections)
    aws.put("etl/warehouse", json.dumps({"username": "etl_b", "password": "third"}))
    forget_secrets()  # as in the process of the next run
    assert user_of(connections) == "etl_b"
    with connections.warehouse_itself().connect() as connection:
        assert connection.execute(text("SELECT current_user")).scalar_one() == "etl_b"


def test_sources_and_apis_take_their_secrets_from_there_too(aws: SecretsManager) -> None:
    forget_secrets()
    aws.put("etl/shop", json.dumps({"username": "reader", "password": "p@ss"}))
    aws.put("etl/api", "token-1")
    url = SourceDatabase(host="h", database="d", aws_secret=aws.block("etl/shop")).url()
    assert (url.username, url.password) == ("reader", "p@ss")
    api = RestApiCredentials(
        base_url="http://api", auth="bearer", aws_secret=aws.block("etl/api"), allow_private=True
    )
    client = api.get_client()
    request = next(client.auth.auth_flow(client.build_request("GET", "/")))  # type: ignore[union-attr]
    assert request.headers["Authorization"] == "Bearer token-1"
    assert client.redacted("said token-1") == "said ***"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, r"'etl/wrong-0' of AWS Secrets Manager: there is none \(ResourceNotFound"),
        ('{"user": "x"}', "'etl/wrong-1' .*no JSON object with a key 'password'"),
    ],
)
def test_secret_that_is_not_there_is_the_users_mistake(
    aws: SecretsManager, warehouse: WarehouseCredentials, content: str | None, expected: str
) -> None:
    forget_secrets()
    name = f"etl/wrong-{0 if content is None else 1}"
    if content is not None:
        aws.put(name, content)
    block = warehouse.model_copy(update={"password": None, "aws_secret": aws.block(name)})
    with pytest.raises(ConfigError, match=expected):
        Connections(load_environment("dev"), lambda _class, _name: block).warehouse()


def test_secrets_manager_that_does_not_answer_is_asked_again_later(
    warehouse: WarehouseCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_secrets()
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    there = SecretsManager("http://127.0.0.1:9").block("etl/warehouse")
    block = warehouse.model_copy(update={"password": None, "aws_secret": there})
    with pytest.raises(SourceUnavailable, match="EndpointConnectionError"):
        Connections(load_environment("dev"), lambda _class, _name: block).warehouse()


def test_block_takes_one_of_password_and_secret(aws: SecretsManager) -> None:
    secret = aws.block("x")
    for block, given in (
        (WarehouseCredentials, {"database": "d", "username": "u"}),
        (SourceDatabase, {"host": "h"}),
    ):
        with pytest.raises(ValidationError, match="aws_secret that has it"):
            block(**given, password=SecretStr("p"), aws_secret=secret)
    with pytest.raises(ValidationError, match="aws_secret that has it"):
        WarehouseCredentials(database="d", username="u")


def test_bootstrap_fills_blocks_from_secrets(
    aws: SecretsManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in aws.variables.items():
        monkeypatch.setenv(name, value)
    aws.put("etl/alerts", json.dumps({"slack": "https://hooks/1"}))
    aws.put("etl/plain", "plain")
    values = Values({"HOST": "w"})
    filled = values.fill(
        {
            "url": {"aws_secret": "etl/alerts", "key": "slack"},
            "keys": [{"aws_secret": "etl/plain"}],
            "host": {"variable": "HOST"},
            "other": {"block": "aws-secret/x"},
        }
    )
    assert filled == {
        "url": "https://hooks/1", "keys": ["plain"], "host": "w", "other": {"block": "aws-secret/x"},
    }  # fmt: skip
    with pytest.raises(ConfigError, match="no JSON object with a key 'mail'"):
        values.fill({"aws_secret": "etl/alerts", "key": "mail"})
    with pytest.raises(ConfigError, match=r"environment variables are not set: P, for a/b c\.0"):
        values.require({"a/b": {"c": [{"variable": "P"}]}})
