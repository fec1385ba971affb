"""The servers live exactly as long as somebody uses them, however their users end."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psycopg2
import pytest

from embedded import supervision
from embedded.component import Component, EmbeddedServerError
from embedded.ports import LOCALHOST, http_answers
from embedded.postgres import connect, ensure_database
from embedded.stack import EmbeddedStack


def web_server(**changes):
    """Some server that is quick to start: what a demo adds from outside."""
    values = {
        "name": "web",
        "ports": {"web": 0},
        "command": lambda ports: [
            *(sys.executable, "-u", "-m", "http.server", "--bind", LOCALHOST, str(ports["web"]))
        ],
        "ready": lambda ports: http_answers(f"http://{LOCALHOST}:{ports['web']}/"),
        "stop_seconds": 2,
        "start_seconds": 10,
    }
    return Component(**{**values, **changes})


def answers_quickly(ports):
    try:
        with socket.create_connection((LOCALHOST, ports["web"]), timeout=0.2) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.recv(4) == b"HTTP"
    except OSError:
        return False


def test_servers_are_shared_and_end_with_their_last_user(filled_folder):
    """start → reuse by a second process → still up when the first ends → gone with the last."""
    folder = filled_folder
    first = folder.user("postgres")
    assert folder.told(first)["events"] == [["postgres", "starting"], ["postgres", "ready"]]
    server = folder.state("postgres")

    second = folder.user("postgres")
    assert folder.told(second)["events"] == [["postgres", "starting"], ["postgres", "reused"]]
    assert folder.state("postgres") == server

    begin = time.monotonic()
    assert ["postgres", "stopped"] not in folder.end(first)
    assert time.monotonic() - begin < 2, "the first user waited for servers that stay up"
    time.sleep(0.3)
    assert folder.is_up(server)

    assert ["postgres", "stopped"] in folder.end(second)
    assert not folder.is_up(server)
    assert folder.is_quiet()


def test_servers_end_when_their_user_is_killed(filled_folder):
    """SIGKILL of the only user, whose forked child lives on, leaves nothing."""
    folder = filled_folder
    user = folder.user("postgres", options=("fork",))
    child = folder.told(user)["child"]
    server = folder.state("postgres")
    try:
        user.kill()
        assert folder.becomes_quiet(15)
        assert not folder.is_up(server)
    finally:
        os.kill(child, signal.SIGKILL)


def test_nothing_is_left_whenever_a_user_is_killed(folder):
    """SIGKILL at moments spread over the whole start leaves no server that nobody knows of."""
    for step in range(7):
        user = folder.user("postgres")
        time.sleep(step * 0.04 if step else 0.9)  # the first makes the data folder
        user.kill()
        user.communicate()
        assert folder.becomes_quiet(15)
    with EmbeddedStack(folder.root) as stack:
        stack.start("postgres")


def test_killed_server_is_started_again(filled_folder):
    """A server that was SIGKILLed is repaired by the next start, on the same port, with its data."""
    folder = filled_folder
    with EmbeddedStack(folder.root) as stack:
        stack.start("postgres")
        port = stack.postgres.port
        ensure_database(port, stack.postgres.password, "kept")
        killed = folder.state("postgres")
        os.kill(killed["pid"], signal.SIGKILL)
        stack.start("postgres")
        assert folder.state("postgres")["pid"] != killed["pid"]
        assert stack.postgres.port == port
        connect(port, stack.postgres.password, "kept").close()


def test_pid_of_another_process_is_not_killed(folder):
    """A record whose pid now is somebody else's is stale: that process is left alone."""
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        folder.run.mkdir(parents=True)
        stale = {
            "name": "web", "pid": innocent.pid, "started": "1", "ports": {"web": 1},
            "stop_signal": 15, "stop_seconds": 1, "needs": [], "order": 0,
        }  # fmt: skip
        (folder.run / "web.state.json").write_text(json.dumps(stale))
        (folder.run / "gone.state.json").write_text(json.dumps({**stale, "name": "gone"}))
        with EmbeddedStack(folder.root, extra=[web_server()]) as stack:
            stack.start("web")
            assert folder.state("web")["pid"] != innocent.pid
        assert folder.is_quiet()
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_two_processes_at_once_get_one_server(folder):
    """Of two starts at the same moment one starts the server, the other one uses it."""
    users = [folder.user("postgres", wait=False) for _ in range(2)]
    assert [folder.told(user) for user in users] == ["joined", "joined"]
    told = [folder.told(user) for user in users]
    assert told[0]["ports"] == told[1]["ports"]
    assert sorted(each["events"][-1][1] for each in told) == ["ready", "reused"]
    assert len(folder.watchdogs()) == 1


def test_ports_are_remembered_while_they_are_free(folder):
    """A server comes back on its port; if that is taken, it comes up on another."""
    with EmbeddedStack(folder.root, extra=[web_server()]) as stack:
        stack.start("web")
        first = stack.ports("web")
    with EmbeddedStack(folder.root, extra=[web_server()]) as stack:
        stack.start("web")
        assert stack.ports("web") == first
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((LOCALHOST, first["web"]))
        other.listen()
        with EmbeddedStack(folder.root, extra=[web_server()]) as stack:
            stack.start("web")
            assert stack.ports("web") != first


def test_somebody_elses_answer_is_not_taken_for_the_servers(folder):
    """A port that another takes while our server starts is left to the other one."""
    quick = []

    def command(ports):
        if not quick:
            server = http.server.ThreadingHTTPServer(
                (LOCALHOST, ports["web"]), http.server.SimpleHTTPRequestHandler
            )
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
            quick.append(server)
        return web_server().command(ports)

    try:
        with EmbeddedStack(folder.root, extra=[web_server(command=command)]) as stack:
            stack.start("web")
            assert stack.ports("web")["web"] != quick[0].server_port
            assert folder.is_up(folder.state("web"))
    finally:
        quick[0].shutdown()
        quick[0].server_close()


def test_new_user_waits_for_the_end_of_the_old_servers(folder):
    """Who comes while the watchdog stops a slow server gets a new one, not the dying one."""
    slow = "import signal,time; signal.signal(15, lambda *a: (time.sleep(0.7), exit(0)));"
    serve = f"{slow} import runpy,sys; runpy.run_module('http.server', run_name='__main__')"
    component = web_server(
        command=lambda ports: [
            *(sys.executable, "-c", serve, "--bind", LOCALHOST, str(ports["web"]))
        ]
    )
    first = EmbeddedStack(folder.root, extra=[component])
    first.start("web")
    dying = folder.state("web")
    first._supervisor._users.close()  # as the kernel does when a user is killed
    time.sleep(0.3)
    with EmbeddedStack(folder.root, extra=[component]) as second:
        second.start("web")
        assert not folder.is_up(dying)
        assert folder.state("web")["pid"] != dying["pid"]


def test_servers_end_although_the_watchdog_was_killed(folder):
    """A user on its way out starts the watchdog again if somebody killed it."""
    with EmbeddedStack(folder.root, extra=[web_server()]) as stack:
        stack.start("web")
        (watchdog,) = folder.watchdogs()
        os.kill(watchdog, signal.SIGKILL)
    assert folder.is_quiet()


def test_children_of_a_killed_server_end_too(folder):
    """What a killed server left running, in a session of its own, goes with the last user."""
    spawn = "import subprocess,runpy; subprocess.Popen(['sleep','60'],start_new_session=True);"
    serve = f"{spawn} runpy.run_module('http.server', run_name='__main__')"
    component = web_server(
        command=lambda ports: [
            *(sys.executable, "-c", serve, "--bind", LOCALHOST, str(ports["web"]))
        ]
    )
    with EmbeddedStack(folder.root, extra=[component]) as stack:
        stack.start("web")
        os.kill(folder.state("web")["pid"], signal.SIGKILL)
    assert folder.is_quiet()


def test_servers_end_although_their_folder_was_removed(folder):
    """``make clean`` beside running servers takes their records, but leaves no server."""
    with EmbeddedStack(folder.root, extra=[web_server()]) as stack:
        stack.start("web")
        server = folder.state("web")
        for path in folder.run.glob("*"):
            path.unlink()
        stack._supervisor._users.close()
        assert folder.becomes_quiet(5)
        assert not folder.is_up(server)


def test_deaf_server_is_replaced(folder, monkeypatch):
    """A server that lives but does not answer is stopped and started again."""
    monkeypatch.setattr(supervision, "DEAF_SECONDS", 0.2)
    component = web_server(stop_seconds=0.2, ready=answers_quickly)
    with EmbeddedStack(folder.root, extra=[component]) as stack:
        stack.start("web")
        deaf = folder.state("web")
        aged = {**deaf, "order": deaf["order"] - 60}
        (folder.run / "web.state.json").write_text(json.dumps(aged))
        os.kill(deaf["pid"], signal.SIGSTOP)
        stack.start("web")
        assert not folder.is_up(deaf)
        assert folder.is_up(folder.state("web"))


def test_failed_start_tells_the_end_of_the_log(folder, monkeypatch):
    """The error names the server, the time, the log and its last lines; nothing is on record."""
    monkeypatch.setattr(supervision, "RETRY_SECONDS", 0.02)
    fail = "for n in range(9): print('line', n)\nraise SystemExit(3)"
    component = web_server(command=lambda _ports: [sys.executable, "-c", fail])
    with EmbeddedStack(folder.root, extra=[component]) as stack:
        with pytest.raises(EmbeddedServerError) as caught:
            stack.start("web")
        assert folder.is_quiet()
    message = str(caught.value)
    assert message.startswith("web ended by itself (waited ")
    assert str(folder.root / ".local" / "logs" / "web.log") in message
    assert [line.strip() for line in message.splitlines()[1:]] == [f"line {n}" for n in range(4, 9)]


def test_lost_secrets_are_explained(filled_folder):
    """Data of another password are a message, not a timeout of a minute."""
    folder = filled_folder
    with EmbeddedStack(folder.root) as stack:
        stack.start("postgres")
    (folder.root / ".local" / "secrets.json").unlink()
    with (
        EmbeddedStack(folder.root) as stack,
        pytest.raises(EmbeddedServerError, match="restore the file"),
    ):
        stack.start("postgres")


def test_wrong_password_is_refused(filled_folder):
    """The embedded PostgreSQL asks for its password, from this machine too."""
    folder = filled_folder
    with EmbeddedStack(folder.root) as stack:
        stack.start("postgres")
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            connect(stack.postgres.port, "wrong", "postgres")
