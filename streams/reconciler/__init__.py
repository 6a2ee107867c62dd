"""The reconciler's process: heartbeats in, verdicts on what was metered out."""
