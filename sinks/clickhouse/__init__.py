"""Costs in ClickHouse: connection, schema, writes, and the project's own questions."""
