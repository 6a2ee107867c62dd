"""``meter topics``: the topics of a cluster, and the contract that they are."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metering.errors import MeteringError
from streams.cli.common import dir_option, explain_absence, json_option, running_settings

if TYPE_CHECKING:
    from streams.topics_plan import TopicPlan


@click.group(short_help="The Kafka topics: make them, check them, describe them.")
def topics() -> None:
    """The Kafka topics: make them, check them, describe them."""


@topics.command(short_help="Create what is missing, alter what differs.")
@dir_option()
@click.option("--kafka", metavar="HOST:PORT", help="The cluster; else the running stack's.")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if something differs.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@click.option("--only-missing", is_flag=True, help="Create; leave what exists as it is.")
@click.option(
    "--partitions",
    "overrides",
    metavar="TOPIC=N",
    multiple=True,
    help="Another count of partitions for this topic. May be given again.",
)
@click.option(
    "--replication-factor",
    type=click.IntRange(min=1),
    help="Of topics that are created; else the cluster's default.",
)
@json_option
def apply(
    *,
    folder: Path,
    kafka: str | None,
    check: bool,
    dry_run: bool,
    only_missing: bool,
    overrides: tuple[str, ...],
    replication_factor: int | None,
    as_json: bool,
) -> None:
    """Make the project's topics what they should be, and say for each what was done.

    What is missing is created. Of what exists, the configs that the project names are set where
    they differ, and partitions are added where there are too few; no data is deleted, no partition
    taken away, and no other config touched. What can't be put right in this way is said, and left.
    """
    from streams.stack.checks import brokers
    from streams.stack.topics_admin import apply_topics
    from streams.topics_plan import with_partitions

    if kafka is not None:
        brokers("--kafka", kafka)
    wanted = with_partitions(dict(_override(text) for text in overrides))
    settings = running_settings(folder)
    if kafka is not None:
        settings = settings.model_copy(update={"kafka": kafka})
    look_only = check or dry_run
    try:
        plans = asyncio.run(
            apply_topics(
                settings,
                wanted,
                alter=not only_missing,
                write=not look_only,
                replication_factor=replication_factor,
                try_for_s=0.0,
            )
        )
    except MeteringError as exc:
        raise explain_absence(folder, exc) from exc
    _show(plans, as_json, "would be " if look_only else "")
    sys.exit(1 if check and any(plan.differs for plan in plans) else 0)


@topics.command(short_help="The topics as an AsyncAPI 3.0 document.")
def asyncapi() -> None:
    """The topics as an AsyncAPI 3.0 document: channels, keys, headers, payloads.

    It stands in docs/asyncapi.json.
    """
    from streams.contract.asyncapi import asyncapi_document

    click.echo(as_text(asyncapi_document()), nl=False)


@topics.command(short_help="The schemas that a release is held to.")
def schemas() -> None:
    """The schemas that later releases are held to, topic by topic.

    Those of the last release stand in docs/schemas/released.json.
    """
    from streams.contract.schemas import topic_schemas

    click.echo(as_text(topic_schemas()), nl=False)


def as_text(document: object) -> str:
    """The same for the same document, and readable in a difference."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _override(text: str) -> tuple[str, int]:
    name, _, count = text.rpartition("=")
    if not name or not (count.isascii() and count.isdecimal() and 0 < int(count[:9]) < 10**6):
        raise click.BadParameter(f"{text!r}: TOPIC=N is wanted", param_hint="--partitions")
    return name, int(count)


def _show(plans: Sequence[TopicPlan], as_json: bool, would: str) -> None:
    if as_json:
        click.echo(json.dumps([_as_json(plan) for plan in plans], indent=2))
        return
    for plan in plans:
        click.echo(str(plan) if not plan.changes else str(plan).replace(": ", f": {would}", 1))


def _as_json(plan: TopicPlan) -> dict[str, object]:
    return {
        "topic": plan.topic.name,
        "created": plan.create,
        "partitions": plan.more_partitions,
        "altered": {name: list(values) for name, values in plan.configs.items()},
        "left": list(plan.beyond),
    }
