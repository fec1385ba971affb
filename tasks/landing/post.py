"""Posts events and waits until the Prefect server has accepted them."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
from prefect.client.orchestration import get_client
from prefect.events import Event

from tasks.landing.routes import Posted
from tasks.model.errors import SourceUnavailable


def post_events(posted: Sequence[Posted]) -> None:
    """Post events in one request; when it returns, the server has them.

    Prefect's own ``emit_event`` hands an event to a thread, and does not tell what became of it.

    Raises:
        SourceUnavailable: The server did not answer, or did not accept them; it may have some of them.
    """
    if not posted:
        return
    events = [
        Event(
            id=one.id,
            event=one.event.name,
            resource=one.event.resource,
            payload=one.event.model_dump(mode="json"),
        ).model_dump(mode="json")
        for one in posted
    ]
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=events).raise_for_status()
    except (httpx.HTTPError, RuntimeError, OSError) as error:
        raise SourceUnavailable(
            f"the Prefect server did not accept events ({type(error).__name__})"
        ) from None
