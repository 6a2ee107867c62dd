"""Entries of price books."""

from __future__ import annotations

LONG_AGO = "2020-01-01T00:00:00Z"


def entry(usd_per_gpu_hour: str, effective_from: str = LONG_AGO, accelerator: str = "cpu") -> str:
    return (
        f'[[gpu_hour]]\nid = "{accelerator} from {effective_from}"\naccelerator = "{accelerator}"\n'
        f'region = "*"\nusd_per_gpu_hour = "{usd_per_gpu_hour}"\n'
        f"effective_from = {effective_from}\n"
    )
