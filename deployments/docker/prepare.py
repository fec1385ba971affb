"""Makes what the servers of docker-compose.yml need: buckets, and what 'dpp bootstrap --env dev' makes.

Dev declares no blocks, for its own servers give them; here the compose file says where the servers are.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping

from botocore.exceptions import ClientError
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from blocks.object_store import LakeStorage
from blocks.redis_server import RedisServer
from blocks.warehouse import WarehouseCredentials
from deployments.bootstrap.bootstrap import Bootstrap, deploy_variables
from tasks.environments import load_environment, project_root
from tasks.model.errors import PipelineError

BUCKETS = ("landing", "lake")
USER = "etl"


def credentials_of(variables: Mapping[str, str]) -> AwsCredentials:
    """Return the credentials of the S3 server at ``S3_URL``, which has ``LOCAL_PASSWORD``."""
    return AwsCredentials(
        aws_access_key_id=USER,
        aws_secret_access_key=SecretStr(variables["LOCAL_PASSWORD"]),
        aws_client_parameters=AwsClientParameters(endpoint_url=variables["S3_URL"]),
    )


def blocks_of(variables: Mapping[str, str]) -> dict[str, Block]:
    """Return the blocks of the servers, by ``<block type slug>/<name>``.

    Args:
        variables: ``WAREHOUSE_HOST``, ``S3_URL``, ``REDIS_URL``, and ``LOCAL_PASSWORD`` of all of them.
    """
    password = SecretStr(variables["LOCAL_PASSWORD"])
    credentials = credentials_of(variables)
    return {
        "etl-warehouse-credentials/warehouse": WarehouseCredentials(
            host=variables["WAREHOUSE_HOST"],
            database="warehouse",
            username=USER,
            password=password,
            sslmode="disable",
        ),
        "s3-bucket/landing": S3Bucket(bucket_name="landing", credentials=credentials),
        "etl-lake-storage/lake": LakeStorage(uri="s3://lake/zones", credentials=credentials),
        "etl-redis-server/redis": RedisServer(url=SecretStr(variables["REDIS_URL"])),
    }


def make_buckets(credentials: AwsCredentials) -> None:
    """Make the buckets that are missing."""
    client = credentials.get_s3_client()
    for bucket in BUCKETS:
        try:
            client.create_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in (
                "BucketAlreadyExists",
                "BucketAlreadyOwnedByYou",
            ):
                raise


def main() -> None:
    """Make everything; the second time there is nothing to do."""
    make_buckets(credentials_of(os.environ))
    root, blocks = project_root(), blocks_of(os.environ)
    with get_client(sync_client=True) as client:
        variables = deploy_variables(root, os.environ)
        work = Bootstrap(client, load_environment("dev"), root, variables, blocks)
        steps = work.plan(prune=False)
        work.apply(steps)
    counts = Counter(step.action.value for step in steps)
    sys.stdout.write(", ".join(f"{count} {action}" for action, count in counts.items()) + "\n")


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        sys.exit(str(error))
