"""MoE Workbench: see what a mixture-of-experts language model routes, attends to and thinks, token by token."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from widgets.export_page import export_page
    from workbench.capturing import capture, replay
    from workbench.experiments.efforts import compare_efforts
    from workbench.experiments.sweeps import sweep
    from workbench.families import ModelError
    from workbench.loading import load
    from workbench.model import Model
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
    "export_page",
    "load",
    "open_trace",
    "replay",
    "sweep",
]

__version__ = version("moe-workbench")

# Names are looked up at first use: opening a trace must not wait for torch. No module may be named as a function
# here is (hence `capturing`): importing it would put the module in the function's place.
_HOME = {
    "CaptureSpec": "workbench.spec",
    "Model": "workbench.model",
    "ModelError": "workbench.families",
    "Trace": "workbench.trace",
    "TraceError": "workbench.trace",
    "TraceStore": "workbench.store",
    "ask": "workbench.transcripts.asking",
    "capture": "workbench.capturing",
    "compare_efforts": "workbench.experiments.efforts",
    "estimate": "workbench.sizing",
    "export_page": "widgets.export_page",
    "load": "workbench.loading",
    "open_trace": "workbench.trace_file",
    "replay": "workbench.capturing",
    "sweep": "workbench.experiments.sweeps",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"workbench has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
