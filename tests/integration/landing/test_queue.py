"""The landing queue, with a real SQS protocol and real notifications of an S3 server (moto)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from blocks.landing_queue import LandingQueue
from tasks.landing import queue as queue_module
from tasks.landing.post import post_events
from tasks.landing.queue import Queue
from tasks.landing.routes import Posted
from tasks.model.errors import SourceUnavailable
from tasks.reporting.events import ObjectLanded


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsCredentials]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield AwsCredentials(
        aws_access_key_id="test",
        aws_secret_access_key=SecretStr("only-for-tests"),
        region_name="eu-central-1",
        aws_client_parameters=AwsClientParameters(endpoint_url=f"http://{host}:{port}"),
    )
    server.stop()


@pytest.fixture
def landing(aws: AwsCredentials, monkeypatch: pytest.MonkeyPatch) -> LandingQueue:
    """A bucket that tells a queue of its objects; the queue gives up on a message after 2 times."""
    monkeypatch.setattr(queue_module, "GATHER_SECONDS", 0.5)
    name = f"q{uuid4().hex[:8]}"
    sqs = aws.get_client("sqs")
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    dead_arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
    redrive = {
        "deadLetterTargetArn": dead_arn["Attributes"]["QueueArn"],
        "maxReceiveCount": "2",
    }
    url = sqs.create_queue(
        QueueName=name,
        Attributes={"VisibilityTimeout": "1", "RedrivePolicy": json.dumps(redrive)},
    )["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    s3 = aws.get_s3_client()
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    told = {"QueueArn": arn["Attributes"]["QueueArn"], "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(
        Bucket=name, NotificationConfiguration={"QueueConfigurations": [told]}
    )
    return LandingQueue(url=url, credentials=aws)


def waiting(landing: LandingQueue, url: str | None = None) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = landing.get_client().get_queue_attributes(
        QueueUrl=url or landing.url, AttributeNames=names
    )
    return sum(int(found["Attributes"][name]) for name in names)


def test_objects_of_a_real_bucket_are_heard_of_and_poison_goes_to_the_dead_letters(
    landing: LandingQueue,
) -> None:
    """A message that is not understood holds up no other; it is never deleted here."""
    client: Any = landing.get_client()
    assert landing.credentials
    bucket = landing.url.rpartition("/")[2]
    s3 = landing.credentials.get_s3_client()
    queue = Queue(client, landing.url)
    messages = queue.gather(0)  # S3's own test message, if the server sends one
    client.send_message(QueueUrl=landing.url, MessageBody="{poison")
    for number in range(12):  # more than a queue gives at once
        s3.put_object(Bucket=bucket, Key=f"in/ä {number:02}+.csv", Body=b"id\n1\n")
    messages += queue.gather(1)
    landed = [one for message in messages for one in message.landed]
    assert sorted(one.key for one in landed) == [f"in/ä {number:02}+.csv" for number in range(12)]
    assert {one.bucket for one in landed} == {bucket}
    queue.delete(messages)
    deadline = time.monotonic() + 20
    while waiting(landing) and time.monotonic() < deadline:
        assert queue.gather(0) == []
        time.sleep(0.5)
    assert waiting(landing) == 0
    assert waiting(landing, f"{landing.url}-dead") == 1
    assert 1 <= queue.not_understood <= 2


def test_message_that_was_not_deleted_comes_again(landing: LandingQueue) -> None:
    assert landing.credentials
    s3 = landing.credentials.get_s3_client()
    s3.put_object(Bucket=landing.url.rpartition("/")[2], Key="a.csv", Body=b"x")
    queue = Queue(landing.get_client(), landing.url)
    first = [one for message in queue.gather(2) for one in message.landed if one.key == "a.csv"]
    again = [one for message in queue.gather(3) for one in message.landed if one.key == "a.csv"]
    assert len(first) >= 1 and set(again) <= set(first)
    assert again, "it was gone"


def test_server_that_does_not_take_events_is_no_success() -> None:
    event = ObjectLanded(environment="dev", dataset="things", bucket="b", objects=("a",))
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(SourceUnavailable, match="did not accept events"),
    ):
        post_events([Posted(event, uuid4())])
