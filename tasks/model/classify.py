"""``classify``: the one place that decides what an exception means for the product.

The table of SQLSTATEs and HTTP statuses is in ``docs/architecture.md``. Every message is made here,
from codes and names: a driver's own text can hold the values of a row or a password, so of a
database error only the primary message of the server is kept, and only where it names no value.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import sqlalchemy.exc
from obstore.exceptions import BaseError as ObjectStoreError
from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from tasks.model.errors import (
    CapacityExhausted,
    ContractBroken,
    CredentialsRejected,
    ErrorKind,
    PipelineError,
    SourceRejected,
    SourceUnavailable,
    WarehouseRejected,
    WarehouseUnavailable,
)

TRANSIENT_SQLSTATES = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "55P03",  # lock_not_available
        "57014",  # query_canceled, by a time limit
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
        "53300",  # too_many_connections
        "25P03",  # idle_in_transaction_session_timeout
        "25006",  # read_only_sql_transaction, during a failover
    }
)
DATA_SQLSTATES = frozenset({"23502", "23505", "23514", "21000", "54000"})
_LIMIT_REMEDY = "leave columns out, or put many small ones into one of type json"
CAPACITY_SQLSTATES = frozenset({"53100", "53200"})
TRANSIENT_HTTP = frozenset({408, 425, 429, 500, 502, 503, 504})
CREDENTIALS_HTTP = frozenset({401, 403, 407})
CAPACITY_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ENOMEM})

# Classes whose server message names objects and types only, never a value.
_MESSAGES_WITHOUT_VALUES = re.compile(r"^(08|28|3D|3F|40|42|53|54|55|57|58|25)")
_CREDENTIALS_SQLSTATES = frozenset({"28000", "28P01"})
_AUTHENTICATION_TEXT = re.compile(r"password authentication failed|no password supplied", re.I)
_MISSING_DATABASE_TEXT = re.compile(r'database "[^"]*" does not exist')
_UNREACHABLE_TEXT = re.compile(
    r"could not connect|connection .*failed|Connection refused|timeout expired|"
    r"could not translate host name|server closed the connection|connection already closed|"
    r"SSL|starting up|shutting down|too many (clients|connections)|reset by peer|EOF detected|"
    r"could not receive data|could not send data|terminating connection",
    re.I,
)


def classify(error: BaseException, where: str = "warehouse") -> PipelineError:
    """Say what an exception means: which error of ours it is, and so whether to retry it.

    Args:
        error: Anything that a driver, a client or the operating system raised.
        where: What was being talked to, for the message; ``warehouse`` or a source's name.

    Returns:
        An error of ours; one that is already ours is returned as it is.
    """
    if isinstance(error, PipelineError):
        return error
    if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None:
        return classify(error.orig, where)
    for kind, meaning in _MEANINGS:
        if isinstance(error, kind):
            return meaning(error, where)
    return _rejected(where, f"{where}: {type(error).__name__}")


def classify_status(status: int, where: str, said: str = "") -> PipelineError:
    """Say what an HTTP status that is no success means.

    Args:
        status: The HTTP status.
        where: Method and URL without its query.
        said: What the server said about it, already free of secrets.
    """
    message = f"{where}: HTTP {status}{f': {said}' if said else ''}"
    if status in TRANSIENT_HTTP:
        return SourceUnavailable(message)
    if status in CREDENTIALS_HTTP:
        return CredentialsRejected(message, "check the credentials in the source's block")
    return SourceRejected(message)


def is_of_database(error: BaseException) -> bool:
    """Tell whether a driver of a database raised it."""
    return isinstance(error, psycopg2.Error | sqlalchemy.exc.SQLAlchemyError)


def is_transient(error: BaseException) -> bool:
    """Tell whether the same work may succeed when it is tried again."""
    return classify(error).kind in (ErrorKind.TRANSIENT, ErrorKind.UNKNOWN)


def _unavailable(where: str, message: str) -> PipelineError:
    if where == "warehouse":
        return WarehouseUnavailable(message)
    return SourceUnavailable(message)


def _rejected(where: str, message: str, remedy: str | None = None) -> PipelineError:
    if where == "warehouse":
        return WarehouseRejected(message, remedy)
    return SourceRejected(message, remedy)


def _classify_postgres(error: psycopg2.Error, where: str) -> PipelineError:
    state = error.pgcode
    if state is None:
        return _classify_libpq(error, where)
    said = ""
    if _MESSAGES_WITHOUT_VALUES.match(state) and error.diag.message_primary:
        said = f": {error.diag.message_primary}"
    elif error.diag.constraint_name:
        said = f": constraint {error.diag.constraint_name}"
    elif error.diag.column_name:
        said = f": column {error.diag.column_name}"
    message = f"{where}: SQLSTATE {state}{said}"
    if state in TRANSIENT_SQLSTATES or state.startswith("08"):
        return _unavailable(where, message)
    if state in CAPACITY_SQLSTATES:
        return CapacityExhausted(message, "make room on the database server, then run again")
    if state in _CREDENTIALS_SQLSTATES:
        return CredentialsRejected(message, f"check user and password in the block of the {where}")
    if state in DATA_SQLSTATES or state.startswith("22"):
        return ContractBroken(message, _LIMIT_REMEDY if state == "54000" else None)
    remedy = "grant the role what it lacks" if state == "42501" else None
    return _rejected(where, message, remedy)


def _classify_libpq(error: psycopg2.Error, where: str) -> PipelineError:
    """Classify an error without SQLSTATE: libpq gives none when it cannot log in."""
    text = str(error).strip()
    if _AUTHENTICATION_TEXT.search(text):
        return CredentialsRejected(
            f"{where}: the password was refused", f"check user and password in the {where}'s block"
        )
    if _MISSING_DATABASE_TEXT.search(text):
        return _rejected(where, f"{where}: {text.rsplit('FATAL:', 1)[-1].strip()}", "create it")
    if "unsupported startup parameter" in text:
        return _rejected(
            where,
            f"{where}: a pooler refuses the settings of a session",
            "indexes are built past it: set direct_host or direct_port in the block",
        )
    # The server gives every error of its own a SQLSTATE: a plain DatabaseError without one is what
    # the driver makes of a connection that was lost while the server was to say something.
    lost = (psycopg2.OperationalError, psycopg2.InterfaceError)
    if isinstance(error, lost) or type(error) is psycopg2.DatabaseError:
        first = next((line for line in text.splitlines() if line), "connection lost")
        return _unavailable(
            where,
            f"{where}: {first}" if _UNREACHABLE_TEXT.search(text) else f"{where}: connection lost",
        )
    return _rejected(where, f"{where}: {type(error).__name__}")


def _classify_object_store(error: ObjectStoreError, where: str) -> PipelineError:
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return CredentialsRejected(f"{where}: access refused", "check the credentials in the block")
    text = str(error)
    if re.search(r"status(:| code)? ?4(0[0134]|1[0-9])|NoSuchBucket|InvalidAccessKeyId", text):
        return SourceRejected(f"{where}: {_first_words(text)}")
    if re.search(r"No space left|StorageFull", text):
        return CapacityExhausted(f"{where}: no space left", "make room, then run again")
    return SourceUnavailable(f"{where}: {_first_words(text)}")


def _classify_os(error: OSError, where: str) -> PipelineError:
    if error.errno in CAPACITY_ERRNO:
        return CapacityExhausted(f"{where}: {error.strerror}", "make room, then run again")
    if isinstance(error, FileNotFoundError):
        return SourceRejected(f"{where}: missing: {error.filename or _first_words(str(error))}")
    if isinstance(error, ConnectionError | TimeoutError):
        return _unavailable(where, f"{where}: {_words(type(error).__name__)}")
    return SourceRejected(f"{where}: {error.strerror or type(error).__name__}")


def _words(name: str) -> str:
    """Turn ``ConnectTimeout`` into ``connect timeout``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _first_words(text: str) -> str:
    """Return the first line of a client's message without URLs' queries, at most 200 characters."""
    line = text.strip().splitlines()[0] if text.strip() else "no message"
    return re.sub(r"\?[^\s\"']*", "", line)[:200]


def _pool_is_busy(error: BaseException, where: str) -> PipelineError:
    said = str(error)
    if not said.startswith("no free connection"):  # of a pool that is none of ours
        said = "no free connection in the pool within its time limit"
    return _unavailable(where, f"{where}: {said}")


def _transport(error: BaseException, where: str) -> PipelineError:
    return SourceUnavailable(f"{where}: {_words(type(error).__name__)}")


def _memory(_error: BaseException, where: str) -> PipelineError:
    return CapacityExhausted(
        f"{where}: the memory budget is used up", "raise memory_budget or lower partition_bytes"
    )


def _unfit_value(error: BaseException, where: str) -> PipelineError:
    # Raised by psycopg2 itself for values that PostgreSQL cannot hold (NUL, surrogates).
    what = "for a value of the data"
    raised = raised_in(error)
    if raised and not raised[-1].startswith("blocks/postgres_session.py"):
        what = f"in {raised[-1]}"
    return ContractBroken(f"{where}: {type(error).__name__} {what}")


def raised_in(error: BaseException) -> list[str]:
    """Return where an exception was raised, the innermost place last: files and lines, no value."""
    return [
        f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]


_MEANINGS: tuple[tuple[Any, Callable[[Any, str], PipelineError]], ...] = (
    (sqlalchemy.exc.TimeoutError, _pool_is_busy),
    (psycopg2.Error, _classify_postgres),
    (httpx.HTTPStatusError, lambda e, where: classify_status(e.response.status_code, where)),
    (httpx.TransportError, _transport),
    (ObjectStoreError, _classify_object_store),
    (OSError, _classify_os),
    (MemoryError, _memory),
    ((ValueError, IndexError), _unfit_value),
)
"""What each kind of exception means; the first that fits decides."""
