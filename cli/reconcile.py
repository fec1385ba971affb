"""``dpp reconcile``: the invariants of every dataset."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from cli.console import console, show_error, stderr
from cli.options import person
from cli.render import reconcile_table
from tasks.catalog import Catalog
from tasks.connections import Connections
from tasks.loading.ledger import ensure_ledger, ledger_exists
from tasks.loading.reconcile import Check, reconcile
from tasks.loading.repair import repair
from tasks.model.environment import Environment
from tasks.model.errors import ContractBroken


def reconcile_datasets(
    environment: Environment, catalog: Catalog, names: Sequence[str], connections: Connections
) -> list[Check]:
    """Check the invariants of some datasets; none if nothing was ever loaded."""
    engine, lake = connections.warehouse(), connections.lake()
    if not ledger_exists(engine):
        return []
    ensure_ledger(engine)  # one of an older version lacks what is read here
    return [
        check
        for name in names
        for check in reconcile(
            engine,
            lake,
            catalog[name],
            environment.retention_days,
            catalog.lookups_of(catalog[name]),
        )
    ]


def repair_datasets(
    environment: Environment, catalog: Catalog, broken: Sequence[Check], connections: Connections
) -> None:
    """Make lake and tables of some datasets what they must be; one that cannot be is named."""
    from tasks.verification.project import remake_lake

    engine, lake = connections.warehouse(), connections.lake()
    ensure_ledger(engine)
    for name in sorted({check.dataset.partition(".")[0] for check in broken}):
        try:
            if any(check.invariant == "I2" and check.dataset == name for check in broken):
                for remade in remake_lake(environment, catalog, catalog[name], connections):
                    stderr.print(
                        f"[bold]{name}[/]: {remade.files} lake files of load {remade.load_id} made "
                        "again from the source, as they were",
                        highlight=False,
                    )
            done = repair(
                engine,
                lake,
                catalog[name],
                environment.retention_days,
                actor=person(),
                lookups=catalog.lookups_of(catalog[name]),
            )
        except ContractBroken as error:
            show_error(error)
            continue
        loads = ", ".join(map(str, done.loads)) or "none"
        stderr.print(
            f"[bold]{name}[/]: {done.deleted:,} rows taken out, {done.inserted:,} put in "
            f"(loads {loads})" + "".join(f"; table {table} made" for table in done.made),
            highlight=False,
        )


def reconcile_sources(
    environment: Environment,
    catalog: Catalog,
    names: Sequence[str],
    connections: Connections,
    since: str | None,
) -> list[Check]:
    """Read the sources of some datasets again, and compare them with the lake."""
    from cli.backfill import moment
    from tasks.verification.project import source_checks, transformed_again

    engine = connections.warehouse()
    if not ledger_exists(engine):
        return []
    ensure_ledger(engine)
    begin = moment("--since", since) if since else None
    checks = []
    for name in names:
        with stderr.status(f"reading the source of {name} again …"):
            checks += source_checks(environment, catalog[name], connections, begin)
            checks.append(transformed_again(environment, catalog, catalog[name], connections))
    return checks


def show_partitions(of_table: Sequence[Check], of_source: Sequence[Check]) -> None:
    """Print counts and checksums of every load in source, lake and warehouse."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("load", justify="right")
    table.add_column("partition")
    for name in ("source", "lake, raw", "lake, clean", "warehouse"):
        table.add_column(f"{name}\nrows · checksum", justify="right")
    raw = {(c.dataset, p.load_id): p for c in of_source for p in c.partitions}
    clean = {(c.dataset, p.load_id): p for c in of_table for p in c.partitions}
    for at in sorted({*raw, *clean}):
        one, other = raw.get(at), clean.get(at)
        named = one or other
        assert named is not None, "it is of one of them"
        table.add_row(
            str(at[1]),
            escape(f"{at[0]}: {named.label}"),
            _sums(one.found_rows, one.found_checksum) if one else "–",
            _sums(one.expected_rows, one.expected_checksum) if one else "–",
            _sums(other.expected_rows, other.expected_checksum) if other else "–",
            _sums(other.found_rows, other.found_checksum) if other else "–",
        )
    if raw or clean:
        console.print(table)


def _sums(rows: int, checksum: int) -> str:
    return f"{rows:,} · {checksum:x}"


def show_checks(checks: Sequence[Check]) -> None:
    """Print every invariant with its verdict, and the verdict over all."""
    if not checks:
        console.print("nothing is loaded yet: dpp run")
        return
    console.print(reconcile_table(checks))
    broken = [check for check in checks if not check.holds]
    if broken:
        for check in broken:
            for line in check.differences:
                console.print(
                    f"{check.dataset} {check.invariant} {line}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
        for remedy in dict.fromkeys(f"{check.invariant}: {check.remedy}" for check in broken):
            console.print(remedy, markup=False, highlight=False, soft_wrap=True)
        console.print(f"[bold red]{len(broken)} of {len(checks)} invariants do not hold[/]")
    else:
        count = len({check.dataset for check in checks})
        datasets = "1 dataset" if count == 1 else f"{count} datasets"
        console.print(f"[green]all {len(checks)} invariants hold[/] for {datasets}")
