"""Takes notifications from the queue, and lets go of those that were passed on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from tasks.landing.notifications import Landed, NotUnderstoodError, landed_objects

log = structlog.get_logger("dpp.landing")

WAIT_SECONDS = 10
"""An empty queue is asked for so long; a stop waits for the answer."""
GATHER_SECONDS = 5.0
"""What comes within so long after the first message is passed on together."""
MOST_MESSAGES = 500
AT_ONCE = 10
"""Most messages that SQS takes or gives at once."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was understood.

    Attributes:
        receipt: What it is deleted by.
        landed: The objects that it tells of.
    """

    receipt: str
    landed: tuple[Landed, ...]


class Queue:
    """One queue.

    Args:
        client: boto3's client of SQS.
        url: The queue.
    """

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url
        self.not_understood = 0
        """Messages that were left in the queue, so that it moves them to its dead letters."""

    def gather(self, wait: float) -> list[Message]:
        """Wait for messages, and take those that come together.

        Args:
            wait: Seconds to wait for the first, at most ``WAIT_SECONDS``.
        """
        found = self._receive(min(WAIT_SECONDS, max(0, int(wait))))
        taken = found
        deadline = time.monotonic() + GATHER_SECONDS
        while found and len(taken) < MOST_MESSAGES and time.monotonic() < deadline:
            found = self._receive(1)
            taken = [*taken, *found]
        return [message for raw in taken if (message := self._understood(raw)) is not None]

    def _receive(self, wait: int) -> list[dict[str, Any]]:
        answer = self._client.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=AT_ONCE, WaitTimeSeconds=wait
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    def _understood(self, raw: dict[str, Any]) -> Message | None:
        try:
            landed = landed_objects(str(raw.get("Body", "")))
        except NotUnderstoodError as error:
            self.not_understood += 1
            log.warning("landing.not_understood", message_id=raw.get("MessageId"), why=str(error))
            return None
        return Message(str(raw["ReceiptHandle"]), tuple(landed))

    def delete(self, messages: Sequence[Message]) -> None:
        """Let go of messages; one that the queue keeps comes again, which does no harm."""
        for start in range(0, len(messages), AT_ONCE):
            chosen = messages[start : start + AT_ONCE]
            answer = self._client.delete_message_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": message.receipt}
                    for number, message in enumerate(chosen)
                ],
            )
            if failed := answer.get("Failed"):
                log.warning("landing.not_deleted", messages=len(failed), why=failed[0].get("Code"))
