"""What a measured process says of itself, and how it is asked. Of the standard library alone.

The peers' interpreters import it too.
"""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def peak_memory() -> int:
    """Return the most bytes that this program had in memory.

    Not the operating system's count for the process, which begins with what its parent had.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    found = next(line for line in lines if line.startswith("VmHWM:"))
    return int(found.split()[1]) << 10


def cpu_seconds() -> float:
    """Return the CPU time of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def run_alone(command: Sequence[str], seconds: float = 1800) -> dict[str, Any]:
    """Run one contender in a process of its own, for a limited time.

    Returns:
        What it printed last, as JSON; or what went wrong under ``failed``.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["?"])[-1][:90]}
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return said
