"""The sources that are read: files, objects and tables of the same things, made for the benchmark."""

from __future__ import annotations

import csv
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

COLUMNS = ("id", "customer", "amount", "quantity", "price", "status", "note", "at", "day")
OBJECT_ROWS = 220
"""About 20 kB."""


def row_of(number: int, dice: random.Random) -> tuple[Any, ...]:
    """Return the values of one thing."""
    return (
        number,
        f"customer {dice.randrange(100_000)}",
        f"{dice.randrange(10**7) / 100:.2f}",
        dice.randrange(100),
        f"{dice.random() * 1000:.6f}",
        dice.choice(("new", "paid", "sent", "returned")),
        "" if number % 7 else 'said "yes", twice',
        f"2024-{1 + number % 12:02d}-{1 + number % 28:02d}T{number % 24:02d}:15:00Z",
        f"2024-{1 + number % 12:02d}-{1 + number % 28:02d}",
    )


def write_csv(path: Path, first: int, rows: int) -> None:
    """Write things as a CSV file with a header."""
    dice = random.Random(first)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(row_of(number, dice) for number in range(first, first + rows))


def prepare_csv(_stack: Any, folder: Path, scale: float) -> dict[str, Any]:
    """Write one large file."""
    path = folder / "large.csv"
    rows = int(3_000_000 * scale)
    write_csv(path, 0, rows)
    return {"path": str(path), "rows": rows, "bytes": path.stat().st_size}


def prepare_objects(stack: Any, folder: Path, scale: float) -> dict[str, Any]:
    """Put 5,000 objects of about 20 kB."""
    import obstore
    from obstore.store import S3Store

    address = stack.object_store
    store = S3Store(
        "objects",
        endpoint=address.endpoint_url,
        access_key_id=address.access_key,
        secret_access_key=address.secret_key,
        region="us-east-1",
        client_options={"allow_http": True},
    )
    bucket(address, "objects").credentials.get_s3_client().create_bucket(Bucket="objects")
    count = int(5000 * scale)

    def put(number: int) -> int:
        small = folder / f"small-{number % 16}.csv"
        content = small.read_bytes()
        obstore.put(store, f"in/{number:05d}.csv", content)
        return len(content)

    for number in range(16):
        write_csv(folder / f"small-{number}.csv", number * OBJECT_ROWS, OBJECT_ROWS)
    with ThreadPoolExecutor(8) as pool:
        size = sum(pool.map(put, range(count)))
    return {
        "bucket": "objects",
        "endpoint": address.endpoint_url,
        "key": address.access_key,
        "secret": address.secret_key,
        "rows": count * OBJECT_ROWS,
        "bytes": size,
    }


def prepare_table(stack: Any, _folder: Path, scale: float) -> dict[str, Any]:
    """Fill a table of 5 million rows."""
    import psycopg2

    address = stack.postgres
    rows = int(5_000_000 * scale)
    connection = psycopg2.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        dbname="postgres",
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE public.things (id bigint PRIMARY KEY, customer text, amount numeric(12,2),"
            " quantity integer, price double precision, status text, note text, at timestamptz,"
            " day date)"
        )
        cursor.execute(
            "INSERT INTO public.things SELECT n, 'customer ' || n %% 100000, (n %% 1000000) / 100.0,"
            " n %% 100, n * 0.001, (ARRAY['new', 'paid', 'sent', 'returned'])[1 + n %% 4],"
            " CASE WHEN n %% 7 = 0 THEN 'said yes, twice' ELSE '' END,"
            " timestamptz '2024-01-01' + n * interval '1 second', date '2024-01-01' + n %% 365"
            " FROM generate_series(1, %s) n",
            (rows,),
        )
        cursor.execute("SELECT pg_table_size('public.things')")
        found = cursor.fetchone()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE public.things")
    connection.close()
    assert found is not None
    url = (
        f"postgresql+psycopg2://{address.user}:{address.password}@{address.host}:{address.port}"
        "/postgres"
    )
    return {"url": url, "table": "public.things", "rows": rows, "bytes": found[0]}


def bucket(address: Any, name: str) -> Any:
    """Return the block of a bucket."""
    from prefect_aws import AwsCredentials, S3Bucket
    from prefect_aws.client_parameters import AwsClientParameters
    from pydantic import SecretStr

    return S3Bucket(
        bucket_name=name,
        credentials=AwsCredentials(
            aws_access_key_id=address.access_key,
            aws_secret_access_key=SecretStr(address.secret_key),
            aws_client_parameters=AwsClientParameters(endpoint_url=address.endpoint_url),
        ),
    )
