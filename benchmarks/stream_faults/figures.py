"""What is claimed of a run, and what is only told."""

from __future__ import annotations

from benchmarks.report import Figure, none_of
from benchmarks.stream_faults.compare import Findings
from benchmarks.stream_faults.run import Course, Sizes
from benchmarks.stream_faults.world import ONCE


def figures_of(course: Course, findings: Findings, sizes: Sizes) -> dict[str, Figure]:
    return {
        **_what_was_done(course, sizes),
        "checks took": Figure(round(findings.took_s), "s"),
        **_what_is_held(course, findings),
    }


def _what_was_done(course: Course, sizes: Sizes) -> dict[str, Figure]:
    hit = sum(course.hit.values())
    changes = sum(course.changed.values())
    kinds = ", ".join(f"{name} {n}" for name, n in sorted(course.hit.items()))
    changed = ", ".join(f"{name} {n}" for name, n in sorted(course.changed.items()))
    restarts = ", ".join(f"{name} {n}" for name, n in sorted(course.restarts.items()) if n)
    return {
        "emitted": Figure(
            course.emitted, "requests", f"≥ {sizes.requests:,}", course.emitted >= sizes.requests,
            f"{course.boots} boots of the servers",
        ),
        "kills": Figure(hit, "kills", f"{sizes.kills}", hit == sizes.kills, kinds),
        "workers added, taken away": Figure(changes, "times", None, None, changed),
        "rebalances": Figure(course.rebalances, "generations", spread="of the workers' group"),
        "restarts": Figure(sum(course.restarts.values()), "starts", None, None, restarts),
        "kills after a wait without progress": Figure(course.without_progress, "kills"),
        "workers not ended by SIGTERM in 15 s": Figure(course.stubborn, "workers"),
        "sent again on purpose": Figure(course.again, "messages", "above 0", course.again > 0),
        "up to 45 s late": Figure(course.lagging, "batches", "above 0", course.lagging > 0),
        "hours and days late": Figure(course.late, "batches", "above 0", course.late > 0),
        "load took": Figure(
            round(course.load_s), "s", spread=f"{course.emitted / course.load_s:,.0f} requests/s"
        ),
        "all stored after": Figure(
            round(course.stored_s), "s", "all of them", course.all_stored,
            f"{course.emitted / course.stored_s:,.0f} lines/s",
        ),
    }  # fmt: skip


def _what_is_held(course: Course, findings: Findings) -> dict[str, Figure]:
    lines, windows = findings.lines, findings.windows
    published, letters = findings.published, findings.letters
    others = ", ".join(f"{reason} {n}" for reason, n in sorted(letters.others.items()))
    counted = ", ".join(f"{n:,} of {s} s" for s, n in sorted(windows.by_length.items()))
    wanted = findings.expected_windows
    return {
        "lines in ClickHouse": Figure(
            lines.stored, "lines", f"{course.emitted:,}", lines.stored == course.emitted
        ),
        "lines missing": none_of(lines.missing, "lines"),
        "lines twice": none_of(lines.twice, "lines"),
        "lines that nobody emitted": none_of(lines.unknown, "lines"),
        "lines that differ": none_of(lines.wrong, "lines"),
        "windows in ClickHouse": Figure(
            windows.told, "windows", f"{wanted:,}", windows.told == wanted, counted
        ),
        "windows missing": none_of(windows.missing, "windows"),
        "windows that nobody is in": none_of(windows.unknown + windows.twice, "windows"),
        "windows that differ": none_of(windows.wrong, "windows"),
        "windows open that should be final": none_of(windows.open, "windows"),
        "late letters": Figure(
            letters.late, "letters", f"{course.late}", letters.missing == 0
        ),
        "late letters more than once": _again(letters.repeated, "letters"),
        "other letters": Figure(
            sum(letters.others.values()), "letters", "0", not letters.others, others or None
        ),
        "lines not on their topic": none_of(published.missing, "lines"),
        "lines on their topic that differ": none_of(
            published.wrong + published.unknown, "lines"
        ),
        "lines on their topic more than once": _again(
            published.twice, "lines", f"of {published.lines:,}"
        ),
        "windows whose latest on the topic differs": Figure(
            len(findings.apart), "windows", "0", not findings.apart, f"{findings.rows:,} rows there"
        ),
        "windows stored further than published": Figure(
            findings.behind, "windows", spread="in counted_to alone"
        ),
        "workers that met a bug": none_of(course.bugs, "times"),
    }  # fmt: skip


def _again(count: int, unit: str, of: str | None = None) -> Figure:
    return Figure(count, unit, "0" if ONCE else None, count == 0 if ONCE else None, of)


def examples_of(findings: Findings) -> list[str]:
    return [
        *findings.lines.examples,
        *findings.windows.examples,
        *findings.letters.examples,
        *findings.published.examples,
        *findings.apart[:10],
    ]
