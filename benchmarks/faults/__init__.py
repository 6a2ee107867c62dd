"""Kills and outages of the whole chain under load, and the checks of what is left."""
