"""The README's queries as they stand there, and beside each the plain way to the same answer: from
every single line, without windows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from streams.stack.places import REPO

_BLOCK = re.compile(r"```sql\n(.*?)```", re.DOTALL)

# In the README's order: a name, and the plain query; none where the query reads no windows.
_PLAIN = {
    "output_token_cost": """
SELECT tenant, model, sum(output_cost_usd) * 1000000
    / nullIf(sumIf(output_tokens, cost_usd IS NOT NULL), 0) AS usd_per_million
FROM cost_requests GROUP BY tenant, model
""",
    "dearest_minutes": """
SELECT toDateTime64(toStartOfMinute(time), 3, 'UTC') AS window_start, tenant, model, region,
    sum(r.cost_usd) AS cost_usd, sum(r.cost_usd) / countIf(r.cost_usd IS NOT NULL)
FROM cost_requests AS r GROUP BY window_start, tenant, model, region
ORDER BY cost_usd DESC NULLS LAST LIMIT 10
""",
    "days_by_tenant": """
SELECT toDate(time) AS day, tenant, ifNull(sum(r.cost_usd), 0)
FROM cost_requests AS r WHERE time >= {today} - 30 GROUP BY day, tenant
""",
    "anomalies": None,
}


@dataclass(frozen=True, slots=True)
class Question:
    name: str
    fast: str
    plain: str | None


def questions(end_s: int) -> list[Question]:
    """``today()`` is the day after the 30 that are there."""
    today = f"toDate('{datetime.fromtimestamp(end_s, UTC):%Y-%m-%d}')"
    asked = readme_queries()
    if len(asked) != len(_PLAIN):
        raise ValueError(f"the README has {len(asked)} queries, and {len(_PLAIN)} are known here")
    return [
        Question(name, fast.replace("today()", today), plain and plain.replace("{today}", today))
        for (name, plain), fast in zip(_PLAIN.items(), asked, strict=True)
    ]


def readme_queries() -> list[str]:
    """The statements of the README's block of SQL, without comments."""
    match = _BLOCK.search((REPO / "README.md").read_text(encoding="utf-8"))
    if match is None:
        raise ValueError("the README has no block of SQL")
    text = "\n".join(line for line in match[1].splitlines() if not line.startswith("--"))
    return [statement.strip() for statement in text.split(";") if statement.strip()]
