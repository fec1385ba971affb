"""Where requests may go: a table of addresses and links, and a name server that changes its mind."""

from __future__ import annotations

import ipaddress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.egress import AddressRefusedError, Reach, reach_of
from blocks.http_auth import Origin
from blocks.rest_api import RestApiCredentials
from tasks.ingestion.http.links import target_of
from tasks.model.errors import SourceRejected

HOME = httpx.URL("https://api.example.org/v1/things?page=1")
LISTED = ("cdn.example.org", "files.example.org:8443")

ADDRESSES = {
    "8.8.8.8": Reach.PUBLIC,
    "2606:4700::1111": Reach.PUBLIC,
    "127.0.0.1": Reach.PRIVATE,
    "127.9.9.9": Reach.PRIVATE,
    "10.0.0.1": Reach.PRIVATE,
    "172.16.0.1": Reach.PRIVATE,
    "172.31.255.255": Reach.PRIVATE,
    "192.168.1.1": Reach.PRIVATE,
    "100.64.0.1": Reach.PRIVATE,
    "::1": Reach.PRIVATE,
    "fc00::1": Reach.PRIVATE,
    "fd12:3456::1": Reach.PRIVATE,
    "169.254.169.254": Reach.NEVER,
    "169.254.170.2": Reach.NEVER,
    "100.100.100.200": Reach.NEVER,
    "168.63.129.16": Reach.NEVER,
    "fd00:ec2::254": Reach.NEVER,
    "fe80::1": Reach.NEVER,
    "fe80::1%eth0": Reach.NEVER,
    "fec0::1": Reach.NEVER,
    "0.0.0.0": Reach.NEVER,
    "::": Reach.NEVER,
    "255.255.255.255": Reach.NEVER,
    "224.0.0.1": Reach.NEVER,
    "ff02::1": Reach.NEVER,
    "ff0e::1": Reach.NEVER,
    "240.0.0.1": Reach.NEVER,
    "192.0.2.1": Reach.NEVER,
    "198.18.0.1": Reach.NEVER,
    "::ffff:127.0.0.1": Reach.NEVER,
    "::ffff:8.8.8.8": Reach.NEVER,
    "::127.0.0.1": Reach.NEVER,
    "64:ff9b::7f00:1": Reach.NEVER,
    "64:ff9b:1::7f00:1": Reach.NEVER,
    "2002:7f00:1::": Reach.NEVER,
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": Reach.NEVER,
    "2001:db8::1": Reach.NEVER,
}


@pytest.mark.parametrize(("address", "reach"), ADDRESSES.items())
def test_address_is_of_its_kind(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach


@given(st.ip_addresses())
def test_only_global_addresses_are_public(address: ipaddress.IPv4Address) -> None:
    if reach_of(str(address)) is Reach.PUBLIC:
        assert address.is_global and not address.is_multicast and not address.is_private


def target(link: str) -> httpx.URL:
    return target_of(
        link, seen_at=HOME, home=Origin.of(HOME), allow_hosts=LISTED, what="the next page"
    )


@pytest.mark.parametrize(
    ("link", "followed"),
    [
        ("?page=2", "https://api.example.org/v1/things?page=2"),
        ("/v1/things?page=2", "https://api.example.org/v1/things?page=2"),
        ("more", "https://api.example.org/v1/more"),
        ("https://api.example.org/x", "https://api.example.org/x"),
        ("https://api.example.org:443/x", "https://api.example.org/x"),
        ("//api.example.org/x", "https://api.example.org/x"),
        ("HTTPS://API.EXAMPLE.ORG/x", "https://api.example.org/x"),
        ("https://cdn.example.org/x", "https://cdn.example.org/x"),
        ("https://files.example.org:8443/x", "https://files.example.org:8443/x"),
        ("../../../etc/passwd", "https://api.example.org/etc/passwd"),
        ("https:\\\\evil.org/x", r"https://api.example.org/v1/\\evil.org/x"),
        ("https:///x", "https://api.example.org/x"),
    ],
)
def test_link_within_the_api_is_followed(link: str, followed: str) -> None:
    assert str(target(link)) == followed


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("file:///etc/passwd", "not http: file:"),
        ("FILE:///etc/passwd", "not http: file:"),
        ("ftp://api.example.org/x", "not http: ftp"),
        ("gopher://api.example.org/x", "not http: gopher"),
        ("data:application/json,[]", "not http: data"),
        ("javascript:alert(1)", "not http: javascript"),
        ("unix:///var/run/docker.sock", "not http: unix"),
        ("http://api.example.org/x", "on another server"),
        ("https://api.example.org:8443/x", "on another server"),
        ("https://cdn.example.org:8443/x", "on another server"),
        ("https://files.example.org/x", "on another server"),
        ("http://cdn.example.org:443/x", "not encrypted|on another server"),
        ("http://cdn.example.org/x", "not encrypted"),
        ("https://evil.org/?x=api.example.org", "on another server"),
        ("https://api.example.org.evil.org/x", "on another server"),
        ("https://evil.org#api.example.org", "on another server"),
        ("https://xapi.example.org/x", "on another server"),
        ("//evil.org/x", "on another server"),
        ("https://api.example.org@evil.org/x", "user in it"),
        ("https://u:p@api.example.org/x", "user in it"),
        ("https://u@cdn.example.org/x", "user in it"),
        ("http://169.254.169.254/latest/meta-data/", "on another server"),
        ("http://[fd00:ec2::254]/latest", "on another server"),
        ("http://[::1]/x", "on another server"),
        ("http://[::ffff:169.254.169.254]/x", "on another server"),
        ("http://127.0.0.1/x", "on another server"),
        ("http://127.1/x", "on another server"),
        ("http://2130706433/x", "on another server"),
        ("http://0x7f.1/x", "on another server"),
        ("http://0177.0.0.1/x", "on another server|no URL"),
        ("http://localhost/x", "on another server"),
        ("http://metadata.google.internal/", "on another server"),
        ("http://①②⑦.⓪.⓪.①/x", "on another server|no URL"),
        ("https://api.example.org。evil.org/x", "on another server|no URL"),
        ("http://api.example.org\\@evil.org/x", "on another server|no URL|user in it"),
        ("https://[::1", "no URL"),
        ("https://api.example.org:99999/x", "no URL|on another server"),
        ("https://api.example.org:x/x", "no URL"),
        ("https://evil.org\r\nHost: api.example.org/", "no URL|on another server"),
        ("https://" + "a" * 70_000, "no URL"),
    ],
)
def test_link_elsewhere_is_refused(link: str, words: str) -> None:
    with pytest.raises(SourceRejected, match=words) as refusal:
        target(link)
    assert len(str(refusal.value)) < 400


def connect(host: str, *answers: list[str], allow_private: bool = False) -> list[str]:
    """Ask for a URL; return what the name server was asked."""
    asked: list[str] = []

    def resolve(name: str, _port: int) -> list[str]:
        asked.append(name)
        return answers[min(len(asked), len(answers)) - 1]

    block = RestApiCredentials(
        base_url=f"http://{host}:9", timeout=0.2, allow_private=allow_private
    )
    with block.get_client(resolve) as client:
        client.get("/")
    return asked


@pytest.mark.parametrize(
    "address", [address for address, reach in ADDRESSES.items() if reach is not Reach.PUBLIC]
)
def test_name_that_leads_inside_is_refused(address: str) -> None:
    with pytest.raises(AddressRefusedError):
        connect("api.example.org", [address])


@pytest.mark.parametrize("answer", [["8.8.8.8", "127.0.0.1"], ["10.0.0.1", "8.8.8.8"]])
def test_one_bad_address_among_good_ones_is_refused(answer: list[str]) -> None:
    with pytest.raises(AddressRefusedError):
        connect("api.example.org", answer)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "[::1]", "0.0.0.0"]
)
def test_other_writings_of_loopback_are_refused(host: str) -> None:
    block = RestApiCredentials(base_url=f"http://{host}:9", timeout=0.2)
    with block.get_client() as client, pytest.raises(AddressRefusedError):
        client.get("/")


@pytest.mark.parametrize(
    "address", [address for address, reach in ADDRESSES.items() if reach is Reach.NEVER]
)
def test_metadata_service_is_refused_in_private_networks_too(address: str) -> None:
    with pytest.raises(AddressRefusedError):
        connect("api.example.org", [address], allow_private=True)


def test_address_that_was_checked_is_the_one_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second answer would be loopback; it is never asked for."""
    tried: list[tuple[str, int]] = []

    def create_connection(address: tuple[str, int], *_: object, **__: object) -> None:
        tried.append(address)
        raise TimeoutError

    monkeypatch.setattr("socket.create_connection", create_connection)
    with pytest.raises(httpx.ConnectTimeout):
        connect("api.example.org", ["8.8.8.8"], ["127.0.0.1"])
    assert tried == [("8.8.8.8", 9)]


def test_name_server_that_changes_its_answer_is_checked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [["8.8.8.8"], ["127.0.0.1"]]
    monkeypatch.setattr("socket.create_connection", _refuse)
    block = RestApiCredentials(base_url="http://api.example.org", timeout=0.2)
    with block.get_client(lambda _name, _port: answers.pop(0)) as client:
        with pytest.raises(httpx.ConnectError):
            client.get("/")
        with pytest.raises(AddressRefusedError, match=r"api.example.org is 127.0.0.1"):
            client.get("/")


def _refuse(*_: object, **__: object) -> None:
    raise ConnectionRefusedError


def test_next_address_is_tried_if_the_first_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    def create_connection(address: tuple[str, int], *_: object, **__: object) -> None:
        tried.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr("socket.create_connection", create_connection)
    with pytest.raises(httpx.ConnectError):
        connect("api.example.org", ["2606:4700::1111", "8.8.8.8"])
    assert tried == ["2606:4700::1111", "8.8.8.8"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://api.example.org", "begins with https"),
        ("file:///etc/passwd", "begins with https"),
        ("api.example.org", "begins with https"),
        ("https://u:CANARY@api.example.org", "not into a URL"),
        ("https://[::1", "no URL"),
    ],
)
def test_address_of_a_block_must_be_one(url: str, words: str) -> None:
    for fields in ({"base_url": url}, {"base_url": "https://a.org", "token_url": url}):
        with pytest.raises(ValueError, match=words):
            RestApiCredentials.model_validate(fields)
