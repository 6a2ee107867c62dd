"""One root for every error that the project raises on purpose."""

from __future__ import annotations


class MeteringError(Exception):
    """Root of the project's errors; the message names the field and the value."""


class UnreadableUsage(MeteringError):
    """A usage message that can't be parsed or breaks a law; it goes to the dead-letter topic.

    ``detail`` is cut off where it is longer than a log line and a header should be.
    """

    MOST_DETAIL = 2000

    def __init__(self, reason: str, detail: str) -> None:
        detail = detail[: self.MOST_DETAIL]
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UnknownPrice(MeteringError):
    """The price book has no entry for what was used, where and when it was used."""

    def __init__(self, accelerator: str, region: str, when: str) -> None:
        super().__init__(
            f"no price for accelerator={accelerator!r} region={region!r} at {when}: "
            "add a [[gpu_hour]] entry to the price book"
        )
        self.accelerator = accelerator
        self.region = region


class InvalidPriceBook(MeteringError):
    """The price book can't be read; the message names the file, the entry and the field."""


class InvalidTrace(MeteringError):
    """A trace row can't be read; the message names the file, the row and the value."""


class SinkUnavailable(MeteringError):
    """A sink did not take the rows (they are still the caller's), or, with 0 rows, not answer.

    ``retry_after_s``: the sink has asked to be left alone for so long.
    """

    def __init__(
        self, target: str, rows: int, detail: str, retry_after_s: float | None = None
    ) -> None:
        failed = f"did not take {rows} rows" if rows else "does not answer"
        super().__init__(f"{target} {failed}: {detail}")
        self.target = target
        self.rows = rows
        self.retry_after_s = retry_after_s


class SinkRefused(SinkUnavailable):
    """A sink will not take it, however often it is tried; ``detail`` says why."""


class QueryFailed(MeteringError):
    """ClickHouse answered a question with an error, or broke off; the message is its own."""


class StackError(MeteringError):
    """A process of the stack did not start or died; the message names its log file."""
