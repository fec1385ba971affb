"""Each real server comes up, does its work, and tells no secret."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3
import botocore.exceptions
import httpx
import psycopg2
import pytest

from embedded.postgres import binaries
from embedded.stack import EmbeddedStack

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def open_folder(folder):
    """A root folder that other users may reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(0o755)
        folder.root = Path(made)
        folder.run = Path(made) / ".local" / "run"
        yield folder
        for process in folder.processes:
            process.kill()
            process.communicate()
        assert folder.becomes_quiet()


def command_lines():
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def test_all_servers_come_up_and_work(folder):
    """PostgreSQL, S3, the Prefect server with its UI, and a worker; no secret shows in ``ps``."""
    with EmbeddedStack(folder.root) as stack:
        stack.start("prefect_server", "object_store")
        stack.start_worker("embedded-pool")
        assert folder_names(folder) == [
            "object_store",
            "postgres",
            "prefect_server",
            "prefect_worker",
        ]
        assert_no_secret_is_shown(stack, folder)
        assert_the_ui_works(stack.prefect_api_url)
        assert_objects_are_kept_and_guarded(stack.object_store)


def folder_names(folder):
    """The servers on record; only their owner may read the records."""
    paths = list(folder.run.glob("*.state.json"))
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    return sorted(path.name.removesuffix(".state.json") for path in paths)


def assert_no_secret_is_shown(stack, folder):
    shown = "\n".join(command_lines())
    assert str(folder.root) in shown
    secrets = stack.secrets
    for secret in (
        secrets.warehouse_password,
        secrets.s3_secret_key,
        secrets.prefect_encryption_key,
    ):
        assert secret not in shown
        assert secret not in f"{stack.postgres!r}{stack.object_store!r}{secrets!r}"


def assert_the_ui_works(api):
    page = httpx.get(api.removesuffix("/api"), follow_redirects=True)
    assert "<html" in page.text
    for script in re.findall(r'src="(/[^"]+\.js)"', page.text):
        assert httpx.get(f"{api.removesuffix('/api')}{script}").status_code == 200
    settings = httpx.get(f"{api.removesuffix('/api')}/ui-settings").json()
    assert settings["api_url"] == api
    # A service of the server: it is there only if services run within.
    assert httpx.get(f"{api}/health").json() is True


def assert_objects_are_kept_and_guarded(address):
    options = {
        "endpoint_url": address.endpoint_url,
        "aws_access_key_id": address.access_key,
        "region_name": "us-east-1",
    }
    client = boto3.client("s3", aws_secret_access_key=address.secret_key, **options)
    client.create_bucket(Bucket="lake")
    client.put_object(Bucket="lake", Key="a/b", Body=b"kept")
    assert client.get_object(Bucket="lake", Key="a/b")["Body"].read() == b"kept"
    stranger = boto3.client("s3", aws_secret_access_key="wrong", **options)
    with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
        stranger.get_object(Bucket="lake", Key="a/b")


@as_root
def test_servers_work_without_root(open_folder):
    """An ordinary user gets PostgreSQL and S3 too."""
    os.chown(open_folder.root, 65534, 65534)
    prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    environment = {**os.environ, "PYTHONPATH": str(Path(psycopg2.__file__).parents[1])}
    # The interpreter of this environment may live in root's home; then the system's will do.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}"):
        check = [
            *prefix,
            python,
            "-c",
            "import sys, os, psycopg2; os.execv(sys.executable, ['x', '-V'])",
        ]
        if subprocess.run(check, env=environment, check=False).returncode == 0:
            break
    else:
        pytest.skip("no interpreter that an ordinary user may run")
    user = open_folder.user(
        "postgres", "object_store", prefix=prefix, python=python, env=environment, cwd="/"
    )
    assert set(open_folder.told(user)["ports"]) == {"postgres", "object_store"}
    assert open_folder.end(user)[-1][1] == "stopped"


@as_root
def test_postgres_works_where_user_namespaces_are_refused(open_folder, tmp_path):
    """As root in a container that refuses ``unshare``, ``setpriv`` does."""
    refused = tmp_path / "unshare"
    refused.write_text("#!/bin/sh\nexit 1\n")
    refused.chmod(0o755)
    assert shutil.which("setpriv")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    server = binaries() / "initdb"  # needs its library, too
    reached = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(server), "-V"]
    if subprocess.run(reached, check=False, capture_output=True).returncode:
        pytest.skip(f"{server} is in a folder that an ordinary user may not enter")
    user = open_folder.user("postgres", env=environment)
    assert open_folder.told(user)["events"][-1] == ["postgres", "ready"]
    pid = open_folder.state("postgres")["pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Uid:\t65534" in status
    assert open_folder.end(user)[-1] == ["postgres", "stopped"]
