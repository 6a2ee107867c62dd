"""The detector's process: closed windows in, anomalies with causes out."""
