"""Kills, rebalances and disorder of the stream, and what must be left, reckoned anew."""
