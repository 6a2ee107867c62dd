"""The stack on one machine: real processes, supervised, on the loopback, gone when it is.

Kept empty, so that the small helper processes start fast; see ``streams.stack.stack``.
"""
