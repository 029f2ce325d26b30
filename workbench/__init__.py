"""MoE Workbench: see what a mixture-of-experts language model routes, attends to and thinks, token by token."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.capturing import capture, replay
    from workbench.experiments.efforts import compare_efforts
    from workbench.experiments.sweeps import sweep
    from workbench.families import ModelError
    from workbench.model import Model, load
    from workbench.shards import recover
    from workbench.sizing import estimate
    from workbench.spec import CaptureSpec
    from workbench.store import TraceStore
    from workbench.trace import Trace, TraceError
    from workbench.trace_file import open_trace
    from workbench.transcripts.asking import ask

__all__ = [
    "CaptureSpec",
    "Model",
    "ModelError",
    "Trace",
    "TraceError",
    "TraceStore",
    "ask",
    "capture",
    "compare_efforts",
    "estimate",
    "load",
    "open_trace",
    "recover",
    "replay",
    "sweep",
]

__version__ = version("moe-workbench")

# Names are looked up at first use: opening a trace must not wait for torch. No module may be named as a function
# here is (hence `capturing`): importing it would put the module in the function's place.
_HOME = {
    "CaptureSpec": "spec",
    "Model": "model",
    "ModelError": "families",
    "Trace": "trace",
    "TraceError": "trace",
    "TraceStore": "store",
    "ask": "transcripts.asking",
    "capture": "capturing",
    "compare_efforts": "experiments.efforts",
    "estimate": "sizing",
    "load": "model",
    "open_trace": "trace_file",
    "recover": "shards",
    "replay": "capturing",
    "sweep": "experiments.sweeps",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"workbench has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f"workbench.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
