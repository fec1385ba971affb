"""Listening as a Prefect task: from the queue's messages to accepted events."""

from __future__ import annotations

import time
from collections.abc import Iterable

import structlog
from botocore.exceptions import BotoCoreError, ClientError
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect_aws import S3Bucket

from blocks.landing_queue import LandingQueue
from tasks.connections import Connections
from tasks.environments import environment_catalog
from tasks.landing.post import post_events
from tasks.landing.queue import Queue
from tasks.landing.routes import Place, Routes
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError, PipelineError, SourceUnavailable
from tasks.model.source import S3Source
from tasks.model.value import Value
from tasks.stopping import stop_asked

log = structlog.get_logger("dpp.landing")

SERVER_ERRORS = 500
PAUSE_SECONDS = 5.0
"""After a failure the queue is left alone for so long."""


class Heard(Value):
    """What a run of the listener did."""

    messages: int = 0
    """Messages that were passed on, and are gone from the queue."""
    objects: int = 0
    """Objects that they told of, counted once for each dataset."""
    events: int = 0
    not_understood: int = 0
    """Messages that were left to the queue's dead letters."""
    failures: int = 0
    """Times that the queue or the Prefect server did not answer."""


@task(name="listen", task_run_name="listen to {environment.queue_block}", cache_policy=NO_CACHE)
def hear(environment: Environment, seconds: float) -> Heard:
    """Pass on what the queue says until the time is over or a stop is asked for.

    A message is deleted after the Prefect server accepted its events: what happens in between makes it
    come again, and an object that is told of twice is loaded once.

    Raises:
        ConfigError: A block is missing or wrong.
        SourceUnavailable: The queue or the Prefect server did not answer at the end either.
    """
    connections = Connections(environment)
    block = connections.load(LandingQueue, str(environment.queue_block))
    queue = Queue(block.get_client(), block.url)
    specs = environment_catalog(environment).datasets.values()
    routes = Routes(specs, _places(connections, specs))
    heard, last_failure = Heard(), None
    deadline = time.monotonic() + seconds
    while True:
        try:
            heard = _heard_once(environment, queue, routes, heard, deadline - time.monotonic())
            last_failure = None
        except (PipelineError, BotoCoreError, ClientError) as error:
            last_failure = error
            log.warning("landing.failed_for_now", error=type(error).__name__)
            heard = heard.model_copy(update={"failures": heard.failures + 1})
            _pause(min(PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))
        if stop_asked() or time.monotonic() >= deadline:
            break
    if last_failure is not None and not stop_asked():
        raise _meaning(last_failure)
    return heard.model_copy(update={"not_understood": queue.not_understood})


def _heard_once(
    environment: Environment, queue: Queue, routes: Routes, heard: Heard, wait: float
) -> Heard:
    messages = queue.gather(wait)
    landed = [one for message in messages for one in message.landed]
    posted = list(routes.events(environment.name, landed))
    post_events(posted)
    queue.delete(messages)
    for one in posted:
        objects = len(one.event.objects)
        log.info("landing.told", dataset=one.event.dataset, objects=objects or "all")
    return heard.model_copy(
        update={
            "messages": heard.messages + len(messages),
            "objects": heard.objects + sum(len(one.event.objects) for one in posted),
            "events": heard.events + len(posted),
        }
    )


def _places(connections: Connections, specs: Iterable[DatasetSpec]) -> dict[str, Place]:
    """Return where each S3Bucket block points; one that is missing is logged and left out."""
    names = {spec.source.block for spec in specs if isinstance(spec.source, S3Source)}
    places: dict[str, Place] = {}
    for name in sorted(names):
        try:
            bucket = connections.load(S3Bucket, name)
        except ConfigError as error:  # the other datasets are not to wait for it
            log.warning("landing.no_block", block=name, error=str(error))
            continue
        places[name] = Place(bucket.bucket_name, bucket.bucket_folder.strip("/"))
    return places


def _pause(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not stop_asked():
        time.sleep(0.2)


def _meaning(error: Exception) -> PipelineError:
    if isinstance(error, PipelineError):
        return error
    if (
        isinstance(error, ClientError)
        and error.response["ResponseMetadata"]["HTTPStatusCode"] < SERVER_ERRORS
    ):
        code = error.response["Error"]["Code"]
        return ConfigError(
            f"the landing queue refuses: {code}",
            "correct the block's URL, or let its identity receive and delete messages",
        )
    return SourceUnavailable(f"the landing queue does not answer ({type(error).__name__})")
