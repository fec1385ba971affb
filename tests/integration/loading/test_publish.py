"""The load transaction against a real server."""

from __future__ import annotations

import pytest

from tasks.model.errors import ContractBroken, LoadConflict
from tasks.model.report import LoadStatus, RowCounts
from tests.integration.loading.support import World, make_partition, make_spec, rows_table


def test_load_accounts_for_every_row(world: World) -> None:
    """Read = inserted + updated + unchanged + deduplicated + quarantined, and the ledger says so."""
    spec = make_spec()
    world.load(spec, "a", [(1, "one", 1), (2, "two", 1)])
    receipt = world.load(
        spec, "b", [(1, "one", 1), (2, "zwei", 2), (3, "three", 1)], duplicates=2, bad={"range": 3}
    )
    assert receipt.counts == RowCounts(
        read=8, inserted=1, updated=1, unchanged=1, deduplicated=2, quarantined=3
    )
    assert world.rows(spec) == [(1, "one", 1), (2, "zwei", 2), (3, "three", 1)]
    assert world.broken(spec) == set()


def test_partition_is_loaded_once(world: World) -> None:
    """Loading a partition again changes nothing and returns the counts of the first time."""
    spec = make_spec(mode="append", key=(), cursor=None)
    first = world.load(spec, "a", [(1, "one", 1)])
    again = world.load(spec, "a", [(1, "one", 1)])
    assert (first.status, again.status) == (LoadStatus.LOADED, LoadStatus.ALREADY_LOADED)
    assert (again.load_id, again.counts) == (first.load_id, first.counts)
    assert world.rows(spec) == [(1, "one", 1)]


def test_partition_loaded_meanwhile_is_found_under_the_lock(world: World) -> None:
    """Two copies of one load: the second finds the ledger row when it gets the lock."""
    spec = make_spec(mode="append", key=(), cursor=None)
    load = world.prepared(spec, make_partition("a"), rows_table([(1, "one", 1)]))
    first = []

    def on_step(step: str) -> None:
        if step == "gated":
            first.append(world.publish(load))

    again = world.publish(load, on_step)
    assert (first[0].status, again.status) == (LoadStatus.LOADED, LoadStatus.ALREADY_LOADED)
    assert world.rows(spec) == [(1, "one", 1)]


@pytest.mark.parametrize("bad", [{}, {"range": 4}])  # nothing read; everything refused
def test_partition_without_clean_rows_has_a_ledger_row(world: World, bad: dict[str, int]) -> None:
    """A partition without a clean row is in the ledger too, so that it is not planned again."""
    spec = make_spec()
    receipt = world.load(spec, "empty", [], bad=bad)
    assert receipt.counts.read == receipt.counts.quarantined == sum(bad.values())
    assert world.broken(spec) == set()


def test_clean_file_without_rows_is_loaded(world: World) -> None:
    """A clean file may exist and hold no row: pandera refused all of them."""
    spec = make_spec()
    partition = make_partition("a")
    _, manifest = world.manifest(spec, partition, bad={"pandera.x": 2})
    empty = world._clean(spec, rows_table([]), "none", 1000)
    load = world.prepared(spec, partition)
    load = type(load)(**{**vars(load), "manifest": manifest.model_copy(update={"files": (empty,)})})
    assert world.publish(load).counts.quarantined == 2
    assert world.rows(spec) == []


def test_objects_of_a_partition_are_known_afterwards(world: World) -> None:
    """The next plan knows the objects, the fingerprints and the state of what was committed."""
    from tasks.loading.ledger_state import source_state

    spec = make_spec()
    partition = make_partition("a", state={"cursor": "7"})
    world.publish(world.prepared(spec, partition, rows_table([(1, "one", 1)])))
    world.load(spec, "b", [(2, "two", 1)])
    state = source_state(world.engine, spec.name)
    assert state.items == {("file:///a.csv", "sha-a"), ("file:///b.csv", "sha-b")}
    assert partition.fingerprint in state.fingerprints
    assert state.latest == {"cursor": "7"}


def test_object_that_another_partition_loaded_is_a_conflict(world: World) -> None:
    """Packed into another partition, an object is not loaded a second time."""
    spec = make_spec(mode="append", key=(), cursor=None)
    world.load(spec, "a", [(1, "one", 1)])
    other = make_partition("a", slice={"packed": "otherwise"})
    with pytest.raises(LoadConflict, match="another partition"):
        world.publish(world.prepared(spec, other, rows_table([(1, "one", 1)])))
    assert world.rows(spec) == [(1, "one", 1)]


def test_older_run_must_not_publish(world: World) -> None:
    """A run whose dataset was opened by a newer one stops, and names it."""
    spec = make_spec()
    load = world.prepared(spec, make_partition("a"), rows_table([(1, "one", 1)]), run="older")
    world.open(spec, "newer")
    with pytest.raises(LoadConflict, match="newer"):
        world.publish(load)
    assert world.sql("SELECT to_regclass('analytics.things')") == [(None,)]


def test_missing_lake_file_is_named(world: World) -> None:
    """A clean file that is gone stops the load before anything is sent."""
    spec = make_spec()
    load = world.prepared(spec, make_partition("a"), rows_table([(1, "one", 1)]))
    key = load.manifest.files[0].key
    world.lake.delete(key)
    with pytest.raises(ContractBroken, match=key):
        world.publish(load)


def test_changed_lake_file_is_named(world: World) -> None:
    """A clean file with one changed byte, the size as before, is not loaded."""
    spec = make_spec()
    load = world.prepared(spec, make_partition("a"), rows_table([(1, "one", 1)]))
    path = world.root / "lake" / load.manifest.files[0].key
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ContractBroken, match=load.manifest.files[0].key):
        world.publish(load)


def test_row_count_of_copy_must_be_the_manifests(world: World) -> None:
    """A manifest that promises more rows than its file holds is refused."""
    spec = make_spec()
    load = world.prepared(spec, make_partition("a"), rows_table([(1, "one", 1)]))
    file = load.manifest.files[0].model_copy(update={"rows": 2})
    manifest = load.manifest.model_copy(update={"files": (file,), "rows_read": 2})
    with pytest.raises(ContractBroken, match="COPY took 1 rows"):
        world.publish(type(load)(**{**vars(load), "manifest": manifest}))


def test_steps_are_announced_in_order(world: World) -> None:
    """Every named step is reached, in the order of the design."""
    from tasks.loading.publish import STEPS

    spec = make_spec()
    steps: list[str] = []
    load = world.prepared(spec, make_partition("a"), rows_table([(1, "one", 1)]), bad={"r": 1})
    world.publish(load, steps.append)
    assert tuple(steps) == STEPS


def test_publishing_waits_for_its_turn_longer_than_for_a_lock(
    world: World, warehouse: object
) -> None:
    """Loads of one table queue: the wait is not bounded by the time limit of locks."""
    import threading
    import time

    from blocks.warehouse import WarehouseCredentials
    from tasks.loading.publish import load_partition

    assert isinstance(warehouse, WarehouseCredentials)
    impatient = warehouse.model_copy(update={"lock_timeout": 1}).get_engine("impatient")
    spec = make_spec()
    fence = world.open(spec)
    slow = world.prepared(spec, make_partition("a"), rows_table([(1, "one", 1)]), fence=fence)
    quick = world.prepared(spec, make_partition("b"), rows_table([(2, "two", 1)]), fence=fence)
    locked = threading.Event()

    def on_step(step: str) -> None:
        if step == "locked":
            locked.set()
            time.sleep(2)

    thread = threading.Thread(target=world.publish, args=(slow, on_step))
    thread.start()
    locked.wait(10)
    load_partition(impatient, world.lake, world.scratch, quick)
    thread.join()
    impatient.dispose()
    assert world.rows(spec) == [(1, "one", 1), (2, "two", 1)]
