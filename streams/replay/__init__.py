"""Traffic: public traces and a scripted demo, planned as data and sent to Triton."""
