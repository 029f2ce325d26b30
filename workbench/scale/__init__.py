"""A corpus of rollouts in one store, by this process or by many workers on Ray."""
