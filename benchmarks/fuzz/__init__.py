"""Hostile messages into the usage topic: what they are, what must become of them, and whether."""
