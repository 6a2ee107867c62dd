"""ClickHouse's engine in this process, served over ClickHouse's HTTP interface.

One process owns one directory. Clients meet it as they would meet a server; what differs is
said where it is decided, and answered with ClickHouse's own error rather than with silence.
"""
