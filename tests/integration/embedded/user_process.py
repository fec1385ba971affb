"""A user of the embedded servers in a process of its own. It says what it got, and waits to be told.

Arguments: root folder, names of components, and optionally ``fork``: leave a forked child alone.
"""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from embedded.stack import EmbeddedStack


def say(what: object) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


root, names = Path(sys.argv[1]), sys.argv[2].split(",")
events: list[tuple[str, str]] = []
stack = EmbeddedStack(root, on_event=lambda *event: events.append(event))
with stack:
    say("joined")
    stack.start(*names)
    child = 0
    if "fork" in sys.argv[3:]:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    ports = {name: stack.ports(name) for name in names}
    say({"ports": ports, "events": events, "child": child})
    sys.stdin.readline()
say({"events": events})
