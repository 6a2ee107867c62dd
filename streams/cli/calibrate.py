"""``meter calibrate``."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metering.calibration import COSTS
from metering.errors import MeteringError
from metering.figures import figure
from streams.cli.common import Seconds, dir_option, explain_absence, json_option, running_settings

if TYPE_CHECKING:
    from rich.table import Table

    from streams.calibrate import Fitted

FILE_NAME = "calibration.toml"


@click.command(short_help="Fit the coefficients of apportionment to measured batches.")
@click.option("--model", "models", multiple=True, help="Only this model; may be repeated.")
@click.option(
    "--rule",
    type=click.Choice(tuple(COSTS)),
    default="affine-shapley",
    metavar="RULE",
    show_default=True,
    help=f"The rule whose coefficients are fitted: {', '.join(COSTS)}.",
)
@click.option(
    "--last",
    "last_s",
    type=Seconds(),
    metavar="SECONDS",
    help="Only batches of the last so many seconds.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"File that the fits are added to (default DIR/{FILE_NAME}).",
)
@click.option("--dry-run", is_flag=True, help="Write nothing.")
@click.option("--clickhouse", metavar="URL", help="Where the metered usage is.")
@dir_option()
@json_option
def calibrate(
    *,
    models: tuple[str, ...],
    rule: str,
    last_s: float | None,
    out: Path | None,
    dry_run: bool,
    clickhouse: str | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Fit what a batch, an input token and an output token take, per model and accelerator.

    Adds the fits to a file, under a new version; servers with METER_CALIBRATION naming that file
    divide by them from their next start on, and their events carry the version. A fit is refused
    where there are too few batches, or where they don't tell one coefficient from another. Exits
    with 1 if nothing could be fitted, or not what --model names.
    """
    from metering.calibrations import read_calibrations, write_calibrations
    from sinks.clickhouse.calibration import measured_batches
    from sinks.clickhouse.queries import ClickHouseReader
    from streams.calibrate import fit_all, record
    from streams.targets import clickhouse_target

    now = datetime.now(UTC)
    path = folder / FILE_NAME if out is None else out
    book = read_calibrations(path)
    since_ms = 0 if last_s is None else int((now.timestamp() - last_s) * 1000)
    settings = running_settings(folder, clickhouse)
    try:
        reader = ClickHouseReader(clickhouse_target(settings))
        measured = measured_batches(reader, models=models, since_ms=since_ms)
        reader.close()
    except MeteringError as exc:
        raise explain_absence(folder, exc) from exc
    missing = sorted(set(models) - {model for model, _ in measured})
    if missing or not measured:
        raise MeteringError(f"no batch was measured of {', '.join(missing) or 'any model'}")
    results = fit_all(measured, rule, book.next_version(now))
    fitted = [r for r in results if r.fit is not None]
    written = bool(fitted) and not dry_run
    if written:
        write_calibrations(path, record(book, results, now))
    if as_json:
        document = {"file": str(path) if written else None, "fits": [r.as_json() for r in results]}
        click.echo(json.dumps(document, indent=2))
    else:
        _show(results, path if written else None)
    sys.exit(0 if fitted and (not models or len(fitted) == len(results)) else 1)


def _show(results: list[Fitted], written: Path | None) -> None:
    from rich.console import Console

    console = Console()
    for result in results:
        if result.fit is None:
            continue
        click.echo(f"{result.model} on {result.accelerator}")
        click.echo(f"  {quality(result)}")
        console.print(_coefficients(result))
    for result in results:
        if result.fit is None:
            click.echo(f"✗ {result.model} on {result.accelerator}: {result.refusal}")
    if written is not None:
        version = next(r.version for r in results if r.fit is not None)
        click.echo(f"version {version} in {written}; servers take it by METER_CALIBRATION")


def quality(result: Fitted) -> str:
    """How good a fit is, on one line."""
    fit = result.fit
    if fit is None:
        return ""
    outliers = f"{fit.outliers:,} outlier{'s' * (fit.outliers != 1)}"
    r_squared, robust = _number(fit.r_squared), _number(fit.robust_r_squared)
    return f"{fit.batches:,} batches, {outliers}, R² {r_squared}, robust R² {robust}"


def _coefficients(result: Fitted) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("  coefficient", "µs", "± 95 %"):
        table.add_column(name, justify="right" if name != "  coefficient" else "left")
    for name, coefficient in result.fit.coefficients.items() if result.fit is not None else ():
        half = (
            "nothing of it"
            if coefficient.stderr_ps is None
            else figure(coefficient.half_width_ps / 1e6, decimals=3)
        )
        table.add_row(
            f"  {name.removesuffix('_ps')}", figure(coefficient.ps / 1e6, decimals=3), half
        )
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else figure(value, decimals=4)
