"""Parts of ``make bench-sql``: what the database is filled with, and what it is asked."""
