"""Which ports servers get."""

import socket

from embedded.ports import LOCALHOST, choose_ports, port_answers, port_is_free


def test_every_port_and_its_pair_is_given_once():
    """Ten servers of five ports each, with pairs 10,000 above, never share one."""
    others: set[int] = set()
    for _ in range(10):
        chosen = set(choose_ports(dict.fromkeys("abcde", 0), 10_000, others).values())
        assert len(chosen) == 5
        pairs = {port + 10_000 for port in chosen}
        assert chosen.isdisjoint(others)
        assert pairs.isdisjoint(others | chosen)
        others |= chosen | pairs


def test_wished_port_is_given_only_if_it_is_nobodys():
    """A port is given as wished unless another server was promised it, or somebody listens."""
    with socket.create_server((LOCALHOST, 0)) as busy:
        taken = busy.getsockname()[1]
        free = choose_ports({"a": 0}, 0, ())["a"]
        assert choose_ports({"a": free}, 0, ()) == {"a": free}
        assert choose_ports({"a": free}, 0, {free})["a"] != free
        both = choose_ports({"a": free, "b": free, "c": free + 1}, 1, ())
        assert both["a"] == free
        assert len({port + more for port in both.values() for more in (0, 1)}) == 6
        assert choose_ports({"a": taken}, 0, ())["a"] != taken
        assert choose_ports({"a": taken - 1}, 1, ())["a"] != taken - 1, "its pair is taken"


def test_listening_port_answers_and_is_not_free():
    """What listens, answers; what does not, is free."""
    with socket.create_server((LOCALHOST, 0)) as server:
        port = server.getsockname()[1]
        assert port_answers(port)
        assert not port_is_free(port)
    assert not port_answers(port)
