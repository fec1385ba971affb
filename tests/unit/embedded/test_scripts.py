"""The launcher and the watchdog, without servers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from embedded import launcher
from embedded.watchdog import is_alive, process_start, read_states, stop_together, waves


def test_server_that_cannot_be_recorded_is_never_started(tmp_path):
    """If the launcher ends before it has recorded the process, that process does nothing."""
    wanted = {"command": ["touch", str(tmp_path / "started")]}
    for folder, starts in ((tmp_path, True), (tmp_path / "missing", False)):
        (tmp_path / "started").unlink(missing_ok=True)
        lock = os.open(tmp_path / "lock", os.O_CREAT)
        command = [sys.executable, "-I", "-S", launcher.__file__, str(lock)]
        ended = subprocess.run(
            [*command, str(folder / "state.json"), json.dumps(wanted)],
            pass_fds=(lock,), capture_output=True, check=False,
        )  # fmt: skip
        os.close(lock)
        time.sleep(0.3)
        assert (ended.returncode == 0) is starts
        assert (tmp_path / "started").exists() is starts


def test_servers_stop_before_what_they_need():
    """First what no other needs, all at once; then what those needed."""
    needs = {"postgres": [], "prefect_server": ["postgres"], "worker": ["prefect_server"], "s3": []}
    states = [{"name": name, "needs": need, "order": 0} for name, need in needs.items()]
    names = [{state["name"] for state in wave} for wave in waves(states)]
    assert names == [{"worker", "s3"}, {"prefect_server"}, {"postgres"}]


def test_record_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    """A torn file is left out; needs in a circle end too."""
    (tmp_path / "a.state.json").write_text("{")
    (tmp_path / "b.state.json").write_text('{"name": "b", "needs": ["b"], "order": 1}')
    states = read_states(tmp_path)
    assert waves(states) == [[{"name": "b", "needs": ["b"], "order": 1}]]


def test_process_that_does_not_listen_is_killed_when_its_time_is_over():
    """A stop signal first; SIGKILL only after the time that the record grants."""
    stubborn = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        state = {
            "pid": process.pid, "started": process_start(process.pid),
            "stop_signal": int(signal.SIGTERM), "stop_seconds": 0.4,
        }  # fmt: skip
        begin = time.monotonic()
        stop_together([state])
        assert time.monotonic() - begin > 0.4
        assert not is_alive(state), "an ended process that nobody reaped counts as gone"
        assert process.wait() == -signal.SIGKILL


def test_scripts_need_the_standard_library_only():
    """They run isolated, whatever the environment has or has not installed."""
    for name in ("watchdog.py", "launcher.py"):
        script = Path(launcher.__file__).with_name(name)
        code = f"import runpy; runpy.run_path({str(script)!r}, run_name='imported')"
        subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
