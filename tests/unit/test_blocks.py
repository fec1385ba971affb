"""Blocks never show a secret, and their connections are bounded and checked."""

from __future__ import annotations

import traceback

import httpx
import pytest
from prefect.blocks.core import Block
from pydantic import SecretStr, ValidationError

from blocks.landing_queue import LandingQueue
from blocks.object_store import LakeStorage
from blocks.privacy import PrivacyKeys
from blocks.redis_server import RedisServer
from blocks.rest_api import RestApiCredentials
from blocks.source_database import SourceDatabase
from blocks.warehouse import WarehouseCredentials
from deployments.bootstrap.inventory import Inventory

CANARY = "CANARY-hunter2"
BLOCKS = [
    WarehouseCredentials(database="w", username="u", password=SecretStr(CANARY)),
    SourceDatabase(host="h", database="d", username="u", password=SecretStr(CANARY)),
    RestApiCredentials(base_url="http://x", auth="bearer", secret=SecretStr(CANARY)),
    PrivacyKeys(key=SecretStr(CANARY * 3), older_keys=[SecretStr(CANARY * 4)]),
]
OURS = (
    WarehouseCredentials,
    SourceDatabase,
    RestApiCredentials,
    LakeStorage,
    LandingQueue,
    PrivacyKeys,
    RedisServer,
    Inventory,
)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_secret_is_never_shown(block: WarehouseCredentials) -> None:
    for shown in (repr(block), str(block), block.model_dump_json(), str(block.model_dump())):
        assert CANARY not in shown
    if hasattr(block, "url"):
        assert CANARY not in repr(block.url())
        assert CANARY not in str(block.get_engine())


@pytest.mark.parametrize(
    ("block", "slug"),
    [
        (WarehouseCredentials, "etl-warehouse-credentials"),
        (SourceDatabase, "etl-source-database"),
        (RestApiCredentials, "etl-rest-api-credentials"),
        (LakeStorage, "etl-lake-storage"),
        (PrivacyKeys, "etl-privacy-keys"),
    ],
)
def test_slug_is_fixed(block: type[LakeStorage], slug: str) -> None:
    """Another slug would orphan every block document that people have saved."""
    assert block.get_block_type_slug() == slug


def test_pool_is_bounded_and_checked() -> None:
    block = WarehouseCredentials(
        database="w", username="u", password=SecretStr("p"), pool_size=3, lock_timeout=7
    )
    engine = block.get_engine()
    assert (engine.pool.size(), engine.pool._max_overflow) == (3, 0)  # type: ignore[attr-defined]
    assert engine.pool._pre_ping
    arguments = block.connect_args("etl/flights")
    assert arguments["keepalives"] == 1
    assert arguments["application_name"] == "etl/flights"


def test_tls_options_reach_the_driver() -> None:
    block = WarehouseCredentials(
        database="w",
        username="u",
        password=SecretStr("p"),
        sslmode="verify-full",
        sslrootcert="/ca",
    )
    arguments = block.connect_args("x")
    assert (arguments["sslmode"], arguments["sslrootcert"]) == ("verify-full", "/ca")


def test_unreachable_warehouse_shows_no_password_in_its_traceback() -> None:
    block = WarehouseCredentials(
        host="127.0.0.1", port=1, database="w", username="u", password=SecretStr(CANARY)
    )
    try:
        block.get_engine().connect()
    except Exception:
        assert CANARY not in traceback.format_exc()
    else:
        pytest.fail("something answers on port 1")


def test_source_database_is_made_from_a_url_and_back() -> None:
    block = SourceDatabase.from_url("postgresql+psycopg2://u:p%40ss@h:5433/d?sslmode=require")
    assert block.password is not None and block.password.get_secret_value() == "p@ss"
    assert block.url().render_as_string(hide_password=False).endswith("@h:5433/d?sslmode=require")


def test_postgres_source_is_read_only() -> None:
    engine = SourceDatabase(host="h", database="d").get_engine()
    assert engine.pool.size() == 4  # type: ignore[attr-defined]


def _sent(block: RestApiCredentials) -> httpx.Request:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(302, headers={"Location": "http://elsewhere/"})

    client = block.get_client()
    client._transport = httpx.MockTransport(answer)
    client._mounts = {}
    assert client.get("/path").status_code == 302
    (request,) = requests  # the redirect was not followed: no credentials went elsewhere
    return request


@pytest.mark.parametrize(
    ("auth", "found"),
    [
        ("api_key_header", lambda request: request.headers["X-API-Key"]),
        ("api_key_query", lambda request: request.url.params["X-API-Key"]),
        ("bearer", lambda request: request.headers["Authorization"].removeprefix("Bearer ")),
    ],
)
def test_credentials_are_sent_as_declared(auth: str, found: object) -> None:
    block = RestApiCredentials.model_validate(
        {"base_url": "http://api", "auth": auth, "secret": CANARY}
    )
    assert callable(found)
    assert found(_sent(block)) == CANARY


def test_basic_authentication_is_sent() -> None:
    block = RestApiCredentials(
        base_url="http://api", auth="basic", username="u", secret=SecretStr("p")
    )
    assert _sent(block).headers["Authorization"] == "Basic dTpw"


def test_authentication_without_a_secret_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs a secret"):
        RestApiCredentials(base_url="http://api", auth="bearer")


def test_lake_of_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="write file:///folder or s3://bucket/prefix"):
        LakeStorage(uri="ftp://x").get_lake()


@pytest.mark.parametrize("block", [*OURS], ids=lambda block: block.__name__)
@pytest.mark.parametrize("by_alias", [True, False])
def test_kept_schema_is_that_which_prefect_makes(block: type[Block], by_alias: bool) -> None:
    made = Block.model_json_schema.__func__(block, by_alias)  # type: ignore[attr-defined]
    kept = block.model_json_schema(by_alias=by_alias)
    assert kept == made
    kept["properties"].clear()  # as a caller may
    assert block.model_json_schema(by_alias=by_alias) == made
