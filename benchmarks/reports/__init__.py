"""Pages and figures of one run or many."""
