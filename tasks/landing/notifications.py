"""What a message of the queue says: which objects were written. Values in, values out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

CREATED = "ObjectCreated:"
EVENT_BRIDGE_CREATED = "Object Created"


class NotUnderstoodError(ValueError):
    """The message is none of the forms in which S3 tells of objects."""


@dataclass(frozen=True, slots=True)
class Landed:
    """An object was written.

    Attributes:
        bucket: Name of the bucket.
        key: Key of the object, decoded.
        version: What tells this writing of it from others, as far as the message says it.
    """

    bucket: str
    key: str
    version: str


def landed_objects(body: str) -> list[Landed]:
    """Return the objects that a message says were written; none, if it is about something else.

    S3 writes to a queue itself, by way of SNS, or by way of EventBridge. Deletions, tags and the test
    message that S3 sends when it is set up are understood, and nothing follows from them.

    Raises:
        NotUnderstoodError: It is no such message.
    """
    message = _json(body)
    if message.get("Type") == "Notification" and isinstance(message.get("Message"), str):
        message = _json(message["Message"])  # SNS puts the message into one of its own
    try:
        if message.get("Event") == "s3:TestEvent":
            return []
        if "detail-type" in message:
            return list(_of_event_bridge(message))
        return [one for record in message["Records"] for one in _of_record(record)]
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise NotUnderstoodError(f"not a notification of S3 ({type(error).__name__})") from None


def _json(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise NotUnderstoodError("not JSON") from None
    if not isinstance(message, dict):
        raise NotUnderstoodError("not a JSON object")
    return message


def _of_record(record: dict[str, Any]) -> list[Landed]:
    if not str(record["eventName"]).removeprefix("s3:").startswith(CREATED):
        return []
    told = record["s3"]["object"]
    key = unquote_plus(_text(told["key"]), errors="strict")
    return [_landed(record["s3"]["bucket"]["name"], key, told.get("eTag"), told)]


def _of_event_bridge(message: dict[str, Any]) -> list[Landed]:
    if message["source"] != "aws.s3":
        raise NotUnderstoodError("an event of EventBridge that is not of S3")
    if message["detail-type"] != EVENT_BRIDGE_CREATED:
        return []
    told = message["detail"]["object"]
    key = _text(told["key"])  # EventBridge does not encode it
    return [_landed(message["detail"]["bucket"]["name"], key, told.get("etag"), told)]


def _landed(bucket: object, key: str, etag: object, told: dict[str, Any]) -> Landed:
    version = f"{etag or ''}/{told.get('sequencer') or told.get('versionId') or ''}"
    return Landed(_text(bucket), key, version)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
