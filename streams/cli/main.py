"""``meter``: one command for the whole stack; errors say what to do, and exit with 1."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from metering.errors import MeteringError
from metering.variables import PREFIX

SUMMARIES = {
    "calibrate": "Fit the coefficients of apportionment to measured batches.",
    "demo": "Traffic, an incident, and a report.",
    "doctor": "What this machine has and what it lacks.",
    "reconcile": "Metered usage against Triton's own counters.",
    "replay": "A trace of real traffic through the stack.",
    "sql": "Ask ClickHouse anything.",
    "top": "Unit costs, live.",
    "topics": "The Kafka topics: make them, check them, describe them.",
    "up": "The whole stack on this machine, until Ctrl-C.",
}
"""The short help of each command, so that the list of them imports none."""
COMMANDS = tuple(SUMMARIES)


class _WhenAsked(click.Group):
    """Imports a command, which is in the module of its name, when it is run or explains itself."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's
        return sorted(SUMMARIES)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's
        cmd_name: str,
    ) -> click.Command | None:
        return command_of(cmd_name) if cmd_name in SUMMARIES else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(sorted(SUMMARIES.items()))


def command_of(name: str) -> click.Command:
    command: click.Command = getattr(import_module(f"streams.cli.{name}"), name)
    return command


@click.group(
    cls=_WhenAsked,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="inference-meter", prog_name="meter")
def meter() -> None:
    """What every inference on your own GPUs costs, per request, while it happens; and why, when
    that changes.

    \b
    New here?      meter doctor     is everything on this machine that is needed?
                   meter demo       traffic, an incident, and a report
    Then:          meter up         the whole stack on this machine, until Ctrl-C
                   meter replay     a trace of real traffic through it
                   meter top        unit costs, live
                   meter sql        any question
                   meter reconcile  metered usage against Triton's own counters
    In production: meter topics     the Kafka topics: make, check, describe
    """
    if not any(name.upper().startswith(PREFIX) for name in os.environ):
        return
    from streams.settings import misspelt

    for warning in misspelt():
        click.echo(f"meter: warning: {warning}", err=True)


def main() -> None:
    """The entry point. What went wrong outside the program is one sentence, and exit code 1; a
    traceback is a bug."""
    # What libraries log on the way to an error would stand before the error's own message.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        try:
            meter(standalone_mode=True)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except MeteringError as exc:
        _end(str(exc))
    except BrokenPipeError:
        _end(None)  # whoever has read the output has read enough
    except OSError as exc:
        _end(": ".join(filter(None, (_name(exc.filename), exc.strerror or str(exc)))))
    except UnicodeError as exc:
        _end(f"{exc}")


def _name(filename: object) -> str:
    return "" if filename is None else str(filename)


def _end(message: str | None) -> NoReturn:
    """Exit with 1. Python flushes stdout once more at the end: what can't be written is dropped."""
    if sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if message is not None:
        with contextlib.suppress(OSError):
            click.echo(f"meter: {message}", err=True)
    sys.exit(1)
