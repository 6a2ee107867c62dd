"""River models over closed windows, and the search for root causes."""
