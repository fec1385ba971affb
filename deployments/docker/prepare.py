"""Makes what the servers of docker-compose.yml need: buckets, blocks, work pool, deployments of dev."""

from __future__ import annotations

import os
import subprocess
import sys

from botocore.exceptions import ClientError
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from blocks.object_store import LakeStorage
from blocks.redis_server import RedisServer
from blocks.warehouse import WarehouseCredentials

POOL = "dev"
BUCKETS = ("landing", "lake")


def main() -> None:
    """Make everything; what is there already is written anew."""
    password = SecretStr(os.environ["LOCAL_PASSWORD"])
    WarehouseCredentials(
        host="postgres", database="warehouse", username="etl", password=password, sslmode="disable"
    ).save("warehouse", overwrite=True)
    credentials = AwsCredentials(
        aws_access_key_id="etl",
        aws_secret_access_key=password,
        aws_client_parameters=AwsClientParameters(endpoint_url="http://s3:8333"),
    )
    make_buckets(credentials)
    S3Bucket(bucket_name="landing", credentials=credentials).save("landing", overwrite=True)
    LakeStorage(uri="s3://lake/zones", credentials=credentials).save("lake", overwrite=True)
    RedisServer(url=SecretStr("redis://redis:6379/2")).save("redis", overwrite=True)
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)
    deploy = ("-m", "prefect", "--no-prompt", "deploy", "--name", "*-dev")
    sys.exit(subprocess.run([sys.executable, *deploy], check=False).returncode)  # noqa: S603 - ours


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


if __name__ == "__main__":
    main()
