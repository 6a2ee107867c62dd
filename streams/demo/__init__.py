"""The demo: calm traffic, an incident, and a report that checks itself."""
