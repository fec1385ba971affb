"""What each exception means: retried, refused, or asked of the ledger; and no secret in its words."""

from __future__ import annotations

import errno
import re

import httpx
import psycopg2
import psycopg2.errors
import pytest
import sqlalchemy.exc
from hypothesis import given
from hypothesis import strategies as st

from tasks.model import errors
from tasks.model.classify import (
    DATA_SQLSTATES,
    TRANSIENT_SQLSTATES,
    classify,
    classify_status,
    is_transient,
)

SECRET = "CANARY-hunter2"


def _libpq(text: str) -> psycopg2.OperationalError:
    return psycopg2.OperationalError(text)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            _libpq('connection to server at "x", port 1 failed: Connection refused'),
            errors.WarehouseUnavailable,
        ),
        (_libpq("server closed the connection unexpectedly"), errors.WarehouseUnavailable),
        (
            _libpq('FATAL:  password authentication failed for user "etl"'),
            errors.CredentialsRejected,
        ),
        (_libpq('FATAL:  database "nope" does not exist'), errors.WarehouseRejected),
        (psycopg2.InterfaceError("connection already closed"), errors.WarehouseUnavailable),
        (psycopg2.ProgrammingError("no"), errors.WarehouseRejected),
        (psycopg2.DatabaseError("no message from the libpq"), errors.WarehouseUnavailable),
        (_libpq("FATAL:  unsupported startup parameter: options"), errors.WarehouseRejected),
        (sqlalchemy.exc.TimeoutError("no free connection within 1 s"), errors.WarehouseUnavailable),
        (sqlalchemy.exc.TimeoutError("QueuePool limit"), errors.WarehouseUnavailable),
        (OSError(errno.ENOSPC, "No space left on device"), errors.CapacityExhausted),
        (MemoryError(), errors.CapacityExhausted),
        (
            ValueError("A string literal cannot contain NUL (0x00) characters."),
            errors.ContractBroken,
        ),
        ("\ud800".encode, errors.ContractBroken),
        (httpx.ReadTimeout("slow"), errors.SourceUnavailable),
        (httpx.ConnectError("refused"), errors.SourceUnavailable),
        (ConnectionResetError(), errors.WarehouseUnavailable),
        (FileNotFoundError(2, "No such file", "x.csv"), errors.SourceRejected),
        (KeyError("x"), errors.WarehouseRejected),
    ],
)
def test_exception_has_its_meaning(error: object, expected: type[errors.PipelineError]) -> None:
    if callable(error):
        try:
            error()
        except UnicodeEncodeError as raised:
            error = raised
    assert isinstance(error, BaseException)
    assert type(classify(error)) is expected


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_http_status_is_retried(status: int) -> None:
    assert is_transient(classify_status(status, "GET /x"))


@pytest.mark.parametrize("status", [401, 403, 407])
def test_http_status_is_the_credentials_fault(status: int) -> None:
    error = classify_status(status, "GET /x", "who are you")
    assert isinstance(error, errors.CredentialsRejected)
    assert error.exit_code == errors.ExitCode.USER_MISTAKE


@given(st.integers(400, 599))
def test_no_refusal_is_both_retried_and_the_users_mistake(status: int) -> None:
    error = classify_status(status, "GET /x")
    assert not (is_transient(error) and error.exit_code == errors.ExitCode.USER_MISTAKE)


def test_error_of_ours_stays_what_it_is() -> None:
    error = errors.GateFailed("no")
    assert classify(error) is error


def test_transient_and_data_states_are_apart() -> None:
    assert not TRANSIENT_SQLSTATES & DATA_SQLSTATES


@pytest.mark.parametrize(
    "error",
    [
        psycopg2.OperationalError(f"weird {SECRET}"),
        psycopg2.DataError(f"LINE 1: insert into x values ('{SECRET}')"),
        ValueError(SECRET),
        sqlalchemy.exc.DataError("select", {"p": SECRET}, psycopg2.DataError(SECRET)),
    ],
)
def test_no_value_reaches_the_message(error: Exception) -> None:
    assert SECRET not in str(classify(error))


def test_error_survives_being_sent_between_processes() -> None:
    error = errors.ConfigError("what", "do this")
    made, arguments = error.__reduce__()
    assert str(made(*arguments)) == "what (do this)"


def test_unexpected_error_says_where_it_was_raised_and_no_value() -> None:
    """What the driver refuses is a value; anything else is somebody's code, which is named."""
    try:
        int("CANARY")
    except ValueError as error:
        message = classify(error, "things").message
    assert re.fullmatch(r"things: ValueError in model/test_classify\.py:\d+", message)
    assert classify(ValueError("NUL")).message == "warehouse: ValueError for a value of the data"
