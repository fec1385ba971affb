"""AWS Secrets Manager as a local server, moto's; it listens on 127.0.0.1 and is ended by its pid."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters
from prefect_aws.secrets_manager import AwsSecret
from pydantic import SecretStr

REGION = "eu-central-1"
ACCESS_KEY = "CANARY-aws-access-key"
START_SECONDS = 60


class SecretsManager:
    """A running server, with what its users need."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._client: Any = boto3.client(
            "secretsmanager", endpoint_url=endpoint, region_name=REGION,
            aws_access_key_id="id", aws_secret_access_key="key",
        )  # fmt: skip

    def put(self, name: str, text: str) -> None:
        """Make a secret, or rotate it."""
        try:
            self._client.create_secret(Name=name, SecretString=text)
        except self._client.exceptions.ResourceExistsException:
            self._client.put_secret_value(SecretId=name, SecretString=text)

    def block(self, name: str) -> AwsSecret:
        """Return a block that points at a secret."""
        credentials = AwsCredentials(
            aws_access_key_id="id",
            aws_secret_access_key=SecretStr(ACCESS_KEY),
            region_name=REGION,
            aws_client_parameters=AwsClientParameters(endpoint_url=self.endpoint),
        )
        return AwsSecret(secret_name=name, aws_credentials=credentials)

    @property
    def variables(self) -> dict[str, str]:
        """What the environment of a process says of it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": ACCESS_KEY,
        }


@contextmanager
def running_secrets_manager() -> Iterator[SecretsManager]:
    """Start a server, and end it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env=os.environ | {"AWS_DEFAULT_REGION": REGION},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
        yield SecretsManager(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(timeout=30)
