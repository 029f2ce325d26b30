"""Experiments: what needs a model that runs, and ends in traces and numbers about them."""

from workbench.experiments.efforts import EffortRuns, compare_efforts
from workbench.experiments.sweeps import Sweep, sweep

__all__ = ["EffortRuns", "Sweep", "compare_efforts", "sweep"]
