"""Pages and figures of one run or of many."""
