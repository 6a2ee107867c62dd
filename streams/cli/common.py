"""What several commands share: options, how a running stack is found, how progress is shown."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from metering.errors import MeteringError

if TYPE_CHECKING:
    from streams.settings import Settings

Function = TypeVar("Function", bound=Callable[..., Any])

_REFUSED = re.compile(r"does not answer: .*\[Errno -?\d+\] ([^\"'()]+).*", re.DOTALL)
DEFAULT_FOLDER = Path(".meter")
MOST_SECONDS = 10 * 366 * 86_400


class Seconds(click.ParamType):
    """A number of seconds above 0, and at most ten years."""

    name = "seconds"

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | int:
        try:
            number = int(value) if self._whole else float(value)
        except (TypeError, ValueError):
            kind = "a whole number" if self._whole else "a number"
            self.fail(f"{value!r} is not {kind} of seconds", param, ctx)
        if not 0 < number <= MOST_SECONDS:
            self.fail(f"{value}: want more than 0 seconds, and at most ten years", param, ctx)
        return number


def dir_option(default: Path = DEFAULT_FOLDER) -> Callable[[Function], Function]:
    return click.option(
        "--dir",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=default,
        show_default=True,
        help="The stack's folder: data, logs, price book.",
    )


def json_option(function: Function) -> Function:
    return click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for machines.")(
        function
    )


def existing_options(function: Function) -> Function:
    """``--kafka``, ``--clickhouse``, ``--triton``: use what already runs."""
    for name, metavar, what in (
        ("--triton", "HOST:PORT", "Use this Triton (gRPC) instead of starting one."),
        ("--clickhouse", "URL", "Use this ClickHouse instead of starting the embedded one."),
        ("--kafka", "HOST:PORT", "Use this Kafka instead of starting one."),
    ):
        function = click.option(name, metavar=metavar, help=what)(function)
    return function


def models_option(function: Function) -> Function:
    return click.option(
        "--models",
        "model_folders",
        multiple=True,
        envvar="METER_MODELS",
        show_envvar=True,
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder of your own models, NAME/config.pbtxt and NAME/1/model.py: Triton loads each "
        "beside the project's own. May be given again.",
    )(function)


def running_settings(
    folder: Path, clickhouse: str | None = None, triton: str | None = None
) -> Settings:
    """Where the stack is: what runs in ``folder``, else the ``METER_*`` environment; an address
    that was given on the command line wins.

    Raises:
        StackError: ``triton`` is not HOST:PORT.
    """
    from streams.settings import Settings
    from streams.stack.running import beside_grpc, find_running

    base = Settings.from_env()
    found = find_running(folder)
    changes: dict[str, Any] = {}
    if found is not None:
        changes = {
            "kafka": found.kafka,
            "clickhouse": found.clickhouse,
            "triton_grpc": found.triton_grpc,
            "triton_http": found.triton_http,
            "triton_metrics": found.triton_metrics,
            "log_dir": found.log_dir,
            "price_book": found.price_book,
        }
    if clickhouse is not None:
        changes["clickhouse"] = clickhouse
    if triton is not None:
        http, grpc, metrics = beside_grpc(triton)
        changes |= {"triton_http": http, "triton_grpc": grpc, "triton_metrics": metrics}
    return base.model_copy(update=changes)


def explain_absence(folder: Path, exc: MeteringError) -> MeteringError:
    """Adds what to do when nothing answers and no stack was found, and leaves out the driver's
    own words for a refused connection."""
    exc = MeteringError(_REFUSED.sub(r"does not answer: \1", str(exc)))
    from streams.stack.running import find_running

    if find_running(folder) is not None:
        return exc
    return MeteringError(
        f"{exc}\nNo stack runs in {folder}: start one with `meter up`, name its folder with --dir, "
        "or set METER_CLICKHOUSE, METER_KAFKA and METER_TRITON_GRPC"
    )


class Narrator:
    """Lines with the seconds since the start, on stderr, so that stdout is the answer alone."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """A line is never broken and never read as markup: it may have a path in it."""
        from rich.text import Text

        line = Text.assemble((f"{time.monotonic() - self._began:6.1f} s", "dim"), "  ", text)
        self.console.print(line, soft_wrap=True)
