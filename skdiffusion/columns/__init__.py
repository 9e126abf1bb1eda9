"""Maps of single columns and their chain: forward with the log-slope, and inverse."""
