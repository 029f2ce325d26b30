"""How many hooks a model has that are not transformers' own."""

import workbench as wb


def hooks(model: wb.Model) -> int:
    """Count forward hooks and pre-hooks; those that transformers leaves after ``output_attentions=True`` aside."""
    found = [h for m in model.hf.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    return sum(not hook.__module__.startswith("transformers.") for hook in found)
