"""The demo's sources: how each is filled, and the block that reaches it."""

from __future__ import annotations

from typing import Any

import obstore
from obstore.store import ObjectStore
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr
from sqlalchemy import create_engine

from blocks.object_store import s3_store
from blocks.rest_api import RestApiCredentials
from blocks.source_database import SourceDatabase
from demo.publish import publish_flights, seed_operations
from embedded.postgres import ensure_database
from embedded.stack import EmbeddedStack
from embedded.supervision import LOCALHOST

BUCKET = "landing"
DATABASE = "operations"


def fill(stack: EmbeddedStack, blocks: set[str]) -> None:
    """Put the demo's data into the sources that are used, unless they are there."""
    if "landing" in blocks:
        store = bucket_store(stack)
        existing = {entry["path"] for page in obstore.list(store) for entry in page}
        publish_flights(lambda key, content: obstore.put(store, key, content), existing)
    if "operations" in blocks:
        address = stack.postgres
        ensure_database(address.port, address.password, DATABASE)
        block = _operations(stack)
        engine = create_engine(block.url())
        try:
            seed_operations(engine)
        finally:
            engine.dispose()


def bucket_store(stack: EmbeddedStack) -> ObjectStore:
    """Open the bucket of the flights; it is made if it is not there."""
    block = _landing(stack)
    client = block.credentials.get_s3_client()
    if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=BUCKET)
    return s3_store(block)


def source_blocks(stack: EmbeddedStack, names: set[str]) -> dict[str, Any]:
    """Return the blocks of the named sources, with today's addresses."""
    made = {"landing": _landing, "weather": _weather, "operations": _operations}
    return {name: made[name](stack) for name in sorted(names)}


def _landing(stack: EmbeddedStack) -> S3Bucket:
    address = stack.object_store
    return S3Bucket(
        bucket_name=BUCKET,
        credentials=AwsCredentials(
            aws_access_key_id=address.access_key,
            aws_secret_access_key=SecretStr(address.secret_key),
            region_name="us-east-1",
            aws_client_parameters=AwsClientParameters(endpoint_url=address.endpoint_url),
        ),
    )


def _weather(stack: EmbeddedStack) -> RestApiCredentials:
    return RestApiCredentials(
        base_url=f"http://{LOCALHOST}:{stack.ports('weather_api')['http']}",
        auth="api_key_header",
        allow_private=True,  # the demo's API is on this machine
        secret=SecretStr(stack.secrets.api_key),
    )


def _operations(stack: EmbeddedStack) -> SourceDatabase:
    address = stack.postgres
    return SourceDatabase(
        host=address.host,
        port=address.port,
        database=DATABASE,
        username=address.user,
        password=SecretStr(address.password),
    )
