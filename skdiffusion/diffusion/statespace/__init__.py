"""State spaces: series of any length, in time linear in it."""
