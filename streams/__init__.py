"""The stream processors, the stack on one machine, and the ``meter`` command."""
