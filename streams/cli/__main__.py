"""``python -m streams.cli``: the ``meter`` command."""

from __future__ import annotations

from streams.cli.main import main

if __name__ == "__main__":
    main()
