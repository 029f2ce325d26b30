"""Pure functions of arrays: routing, attention, reasoning, comparison, statistics."""
