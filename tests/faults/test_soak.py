"""Kill loads at random, again and again; every history ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from blocks.warehouse import WarehouseCredentials
from tests.faults.soak import start
from tests.histories import MODES, History
from tests.integration.loading.support import World

KILLS = int(os.environ.get("DPP_SOAK_KILLS", "200"))
"""How often; nightly runs set more."""
SECONDS = 60
UNDISTURBED = 2
LATER, EARLIER = 1.05, 0.85
"""What a run that was killed, or was not, does to the time after which the next one is: three of four
are, whatever they have left to do."""
KINDS = [(mode, by) for by in (None, "day") for mode in MODES] + [("scd2", "valid_from")]


def test_killed_at_random_times(
    world: World, warehouse: WarehouseCredentials, tmp_path: Path
) -> None:
    """The moments lie all over a run, however fast this machine is."""
    seed = int(os.environ.get("DPP_SOAK_SEED", random.randrange(2**32)))
    print(f"DPP_SOAK_SEED={seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    kinds = chance.sample(KINDS, len(KINDS))
    killed = finished = 0
    length = 0.0
    while killed < KILLS:
        history = History(chance.randrange(2**32), *kinds[finished % len(kinds)])
        loads = history.prepared(world)
        # To see how long a run is; the first starts the server of processes, too.
        undisturbed = finished < UNDISTURBED
        while True:
            began = time.monotonic()
            process = start(warehouse, tmp_path, history, loads)
            process.join(SECONDS if undisturbed or killed == KILLS else chance.uniform(0, length))
            if process.exitcode is None:
                process.kill()
                killed += 1
                length *= LATER
                process.join(SECONDS)
                continue
            assert process.exitcode == 0, history
            length *= EARLIER
            break
        if undisturbed:
            length = time.monotonic() - began
        history.check(world)
        finished += 1
    print(f"{killed} kills in {finished} histories")  # noqa: T201
    assert finished > KILLS / 50
