"""``meter``: one command for the whole stack; errors say what to do, and exit with 1."""

from __future__ import annotations

import logging
import sys
from importlib import import_module

import click

from metering.errors import MeteringError

COMMANDS = ("demo", "up", "replay", "top", "sql", "reconcile", "calibrate", "topics", "doctor")


class _WhenAsked(click.Group):
    """Imports a command, which is in the module of its name, when it is asked for: all of them
    together take two seconds."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's
        return sorted(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's
        cmd_name: str,
    ) -> click.Command | None:
        return command_of(cmd_name) if cmd_name in COMMANDS else None


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
                   meter demo       traffic, an incident, and a report: two minutes
    Then:          meter up         the whole stack on this machine, until Ctrl-C
                   meter replay     a trace of real traffic through it
                   meter top        unit costs, live
                   meter sql        any question
                   meter reconcile  metered usage against Triton's own counters
    In production: meter topics     the Kafka topics, as they should be, and what they carry
    """


def main() -> None:
    """The entry point: a MeteringError is a message for people, anything else is a bug."""
    # What libraries log on the way to an error would stand before the error's own message.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        meter(standalone_mode=True)
    except MeteringError as exc:
        click.echo(f"meter: {exc}", err=True)
        sys.exit(1)
