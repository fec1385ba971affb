"""``LandingQueue``: the SQS queue that S3 tells of new objects."""

from __future__ import annotations

import re
from typing import Any

import boto3
from botocore.config import Config
from prefect.blocks.core import Block
from prefect_aws import AwsCredentials
from pydantic import Field

from blocks.schema import CachedSchema

_REGION = re.compile(r"^https://sqs\.([a-z0-9-]+)\.")


class LandingQueue(CachedSchema, Block):
    """The queue with notifications about objects of the landing bucket."""

    _block_type_name = "ETL Landing Queue"
    _block_type_slug = "etl-landing-queue"

    url: str = Field(description="URL of the SQS queue.")
    credentials: AwsCredentials | None = Field(
        None, description="Without them the process' own AWS identity is used."
    )

    def get_client(self) -> Any:
        """Return boto3's client of SQS, in the region that the queue's URL names."""
        given = self.credentials
        session = given.get_boto3_session() if given else boto3.Session()
        region = _REGION.match(self.url)
        parameters = given.aws_client_parameters.get_params_override() if given else {}
        parameters.setdefault("config", Config(retries={"mode": "standard", "max_attempts": 4}))
        return session.client(
            "sqs",
            region_name=region[1] if region else session.region_name or "us-east-1",
            **parameters,
        )
