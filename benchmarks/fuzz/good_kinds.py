"""What must be stored, though some of it looks bad; and what was there already."""

from __future__ import annotations

from benchmarks.fuzz.batches import Part, event, record
from benchmarks.fuzz.kinds import RIGHT, Draw, Fate, Header, Made, kind

DAY_NS = 86_400 * 10**9
INJECTIONS = (
    "x' OR '1'='1",
    "'; DROP TABLE cost_request_lines; --",
    '"}]}],"tenant":"other',
    "a\nCRITICAL root: all is well\r\n",
    "\x1b[2J\x1b[31mred",
    "{source}%s%n%x${jndi:ldap://x}",
    "../../../etc/passwd",
    "nul\x00inside",
    "\u202egnp.exe",
    "größer 🜂 \U0010ffff",
    " ",
    "\ufeff",
    "x" * 256,
    "\U0001f600" * 256,
    "NULL",
    "\\N",
    "\t\\t\\\\",
    "=cmd|'/c calc'!A1",
)
UNEXECUTED = ("cache_hit", "rejected", "timed_out", "cancelled_in_queue")


@kind("sound", Fate.STORED, weight=40)
def sound(draw: Draw) -> Made:
    batch = draw.batch()
    value = event(batch)
    draw.recent.append(value)
    return Made(value, batch=batch)


@kind("sound, without headers", Fate.STORED, weight=4)
def bare(draw: Draw) -> Made:
    batch = draw.batch()
    return Made(event(batch), (), None, batch)


@kind("a record with its own rule", Fate.STORED, weight=8)
def unfinished(draw: Draw) -> Made:
    batch = draw.batch()
    return Made(record(batch), batch=batch)


@kind("a source that nobody knew", Fate.STORED, weight=20)
def new_source(draw: Draw) -> Made:
    batch = draw.batch(source=f"new/{draw.turn('new sources')}")
    return Made(event(batch), batch=batch)


@kind("injection in names", Fate.STORED, weight=6)
def injection(draw: Draw) -> Made:
    batch = draw.batch()
    tenant = draw.pick("injections", INJECTIONS)
    parts = tuple(part._replace(tenant=tenant) for part in batch.parts)
    batch = batch._replace(parts=parts)
    if draw.turn("injected sources") % 8 == 0:
        source = draw.pick("injections in sources", INJECTIONS)[:240]
        batch = draw.batch(source=f"{source}/{draw.turn('injected')}")._replace(parts=parts)
    return Made(event(batch), batch=batch)


@kind("unknown fields", Fate.STORED, weight=6)
def unknown_fields(draw: Draw) -> Made:
    batch = draw.batch()
    more = draw.pick(
        "unknown fields",
        (
            b'"new":1',
            b'"Tenant":"other","TENANT":"other"',
            b'"__class__":"x","__proto__":{"tenant":"other"}',
            b'"deep":' + b"[" * 100 + b"]" * 100,
            b'"":null',
            b'"model_config":{"extra":"forbid"}',
            b'"batch_id":"x#1"',
        ),
    )
    value = event(batch)
    if draw.turn("unknown in requests") % 2:
        return Made(value.replace(b'{"request_id"', b"{" + more + b',"request_id"'), batch=batch)
    return Made(value[:-1] + b"," + more + b"}", batch=batch)


@kind("a key twice, the last one right", Fate.STORED, weight=3)
def key_twice(draw: Draw) -> Made:
    batch = draw.batch()
    value = event(batch).replace(b'"tenant":', b'"tenant":"other","tenant":')
    return Made(value.replace(b'"sequence":', b'"sequence":-1,"sequence":', 1), batch=batch)


@kind("space between all tokens", Fate.STORED, weight=2)
def spaced(draw: Draw) -> Made:
    batch = draw.batch()
    return Made(b"\r\n\t " + event(batch).replace(b',"', b' \n,\t"') + b" \n", batch=batch)


@kind("sequences up to 2**53 - 1", Fate.STORED, weight=2)
def high_sequence(draw: Draw) -> Made:
    n = draw.turn("high sequences")
    batch = draw.batch(source=f"high/{n // 3}", sequence=(2**53 - 1, 0, 2**53 - 2)[n % 3])
    return Made(event(batch), batch=batch)


@kind("a little ahead of the clock", Fate.STORED, weight=1)
def ahead(draw: Draw) -> Made:
    batch = draw.batch(end_epoch_ns=draw.now_ns + 20 * 10**9)
    return Made(event(batch), batch=batch)


@kind("what never reached its model", Fate.STORED, weight=3)
def unexecuted(draw: Draw) -> Made:
    status = draw.pick("unexecuted", UNEXECUTED)
    batch = draw.batch(parts=(Part("acme", draw.random.randrange(500), 0, 0, status),))
    return Made(event(batch), batch=batch)


@kind("an apportionment rule that only its maker knows", Fate.STORED, weight=2)
def unknown_rule(draw: Draw) -> Made:
    batch = draw.batch()
    return Made(event(batch).replace(b'"equal-split/1"', b'"by-the-moon/9"'), batch=batch)


@kind("odd headers beside the right ones", Fate.STORED, weight=4)
def odd_headers(draw: Draw) -> Made:
    odd: tuple[tuple[Header, ...], ...] = (
        (("nothing", None), ("", b""), ("trace", b"\xff\xfe")),
        RIGHT,
        (("ce_id", None), ("ce_source", b"another"), ("ce_time", b"never")),
        tuple((f"x-{n}", b"y" * n) for n in range(200)),
        (("CE_TYPE", b"another"), ("ce-type", b"another"), ("ce_type ", b"another")),
        (("content-type", b"text/html"),),
    )
    batch = draw.batch()
    return Made(event(batch), (*RIGHT, *draw.pick("odd headers", odd)), b"\xff\x00", batch)


@kind("sent before", Fate.DUPLICATE, weight=16)
def again(draw: Draw) -> Made:
    if not draw.recent:
        sent = draw.batch()
        draw.recent.append(event(sent))
        return Made(draw.recent[0], batch=sent)
    value = draw.random.choice(draw.recent)
    if draw.turn("again, changed") % 2:  # What it says does not count: its identity does.
        value = value.replace(b'"tenant":"tenant-', b'"tenant":"liar-')
    return Made(value)


@kind("from long ago", Fate.LATE, weight=6)
def long_ago(draw: Draw) -> Made:
    """Any month since 1970."""
    back_ns = draw.random.randrange(2 * DAY_NS, draw.now_ns)
    end_ns = draw.pick("long ago", (0, 1, draw.now_ns - back_ns, back_ns - 2 * DAY_NS))
    batch = draw.batch(end_epoch_ns=end_ns)
    return Made(event(batch), batch=batch)
