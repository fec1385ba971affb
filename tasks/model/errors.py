"""The errors of the product, and the one function that decides what an exception means.

    PipelineError
      ConfigError            the user's mistake: a dataset file, an environment, a parameter
      CredentialsRejected    a password, a key or a token was refused
      SourceUnavailable      the source may answer later                       (transient)
      SourceRejected         the source said no, and will say no again
      ContractBroken         the data no longer fit the dataset's contract
      GateFailed             a gate refused the staged rows; nothing was published
      LoadConflict           a newer run owns the dataset
        PlanOutdated         another run loaded some of the partition's objects
      WarehouseUnavailable   the warehouse may answer later                    (transient)
      WarehouseRejected      the warehouse refused a statement, and will refuse it again
      CapacityExhausted      a disk or a memory budget is full
      StageTimeout           a stage took longer than it may                   (transient)
      CommitUnknown          the connection was lost during COMMIT: only the ledger knows

Messages are for people: what happened, where, and what to do. They never carry a secret or a value
of a row.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from tasks.model.anomaly import Finding
from tasks.model.gates import FailedGate


class ErrorKind(StrEnum):
    """What to do about an error; the table is in ``docs/architecture.md``."""

    TRANSIENT = "transient"
    """Retry with jitter inside a time budget."""
    DATA = "data"
    """These rows can never load: quarantine them."""
    TERMINAL = "terminal"
    """Configuration or code is wrong: stop."""
    CAPACITY = "capacity"
    """A disk or memory is full: stop, make room, run again."""
    UNKNOWN = "unknown"
    """The outcome of a COMMIT is unknown: ask the ledger."""


class ExitCode:
    """Exit codes of the command line; documented in the README."""

    DONE = 0
    RUN_FAILED = 1
    USER_MISTAKE = 2
    UNREACHABLE = 3


class PipelineError(Exception):
    """Root of every error that the product raises on purpose.

    Args:
        message: What happened and where, for people.
        remedy: What the reader can do about it; shown on a line of its own.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.TERMINAL
    exit_code: ClassVar[int] = ExitCode.RUN_FAILED

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message

    def __reduce__(self) -> tuple[type[PipelineError], tuple[str, str | None]]:
        return type(self), (self.message, self.remedy)


class ConfigError(PipelineError):
    """The user's mistake: a dataset file, an environment, a block or a parameter."""

    exit_code = ExitCode.USER_MISTAKE


class CredentialsRejected(PipelineError):
    """A password, a key or a token was refused; asking again will not help."""

    exit_code = ExitCode.USER_MISTAKE


class SourceUnavailable(PipelineError):
    """The source did not answer, or asked to come back later."""

    kind = ErrorKind.TRANSIENT
    exit_code = ExitCode.UNREACHABLE

    def __init__(
        self, message: str, remedy: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, remedy)
        self.retry_after = retry_after
        """Seconds the source asked to wait, if it said so."""


class SourceRejected(PipelineError):
    """The source refused the request, and will refuse it again."""


class ContractBroken(PipelineError):
    """The data no longer fit the contract of the dataset file."""


class GateFailed(PipelineError):
    """A gate refused the staged rows; nothing of the partition was published."""

    findings: tuple[Finding, ...] = ()
    """What was unusual, for the report; of learned checks only."""
    failed: tuple[FailedGate, ...] = ()
    """The gates that do not hold, with evidence for the warehouse."""


class LoadConflict(PipelineError):
    """A newer run owns the dataset; this one must not publish."""


class PlanOutdated(LoadConflict):
    """Another run loaded some of the partition's objects; what is left of it is to be planned anew."""


class WarehouseUnavailable(PipelineError):
    """The warehouse did not answer, or cannot take the statement now."""

    kind = ErrorKind.TRANSIENT
    exit_code = ExitCode.UNREACHABLE


class WarehouseRejected(PipelineError):
    """The warehouse refused a statement, and will refuse it again."""


class CapacityExhausted(PipelineError):
    """A disk or a memory budget is full."""

    kind = ErrorKind.CAPACITY


class StageTimeout(PipelineError):
    """A stage took longer than it may and was interrupted."""

    kind = ErrorKind.TRANSIENT


class CommitUnknown(PipelineError):
    """The connection was lost during COMMIT; only the ledger knows what happened."""

    kind = ErrorKind.UNKNOWN
