"""Where the worker's time goes, stage by stage."""
