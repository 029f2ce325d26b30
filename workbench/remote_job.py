"""What is sent to a model that is resident elsewhere, and runs there inside an nnsight trace.

The functions go along as source, with whatever of ours they call; there is no workbench at the other end. So they
take and give plain values and tensors, and lean on torch only. A value must be read in the order in which the model
makes it.
"""

from typing import Any

import torch
from torch import Tensor

from workbench.derive import describe_draws, read_lens

__all__ = ["compare", "draw", "draw_changed", "read_forward", "trace_arrays"]

ROWS = 256
"""Rows whose full distributions are held in float32 at once."""


def read_forward(model: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Read one forward over one sequence, changed by the job's edits, and say what a trace needs of it.

    Args:
        model: the nnsight model, inside its trace.
        job: as `workbench.remote.job_of` makes it.

    Returns:
        Name → tensor [token, layer, width] or [token, width] on the CPU; what describes the draws has one row less.
    """
    found: dict[str, Any] = {"dtype": "", "logits": None}
    layers: dict[str, list[Tensor]] = {}
    if job["attention"]:
        found["rotary_cos"], found["rotary_sin"] = (rows_of(part) for part in model.get(job["rotary"]).output)
    for number in range(job["num_layers"]):
        read_layer(model, job, number, layers)
    found["final"] = rows_of(model.get(job["norm"]).output)
    found["logits"] = rows_of(model.get(job["unembed"]).output)
    found["dtype"] = str(found["final"].dtype)
    found |= {name: torch.stack(tensors, dim=1) for name, tensors in layers.items()}
    return found


def read_layer(model: Any, job: dict[str, Any], number: int, layers: dict[str, list[Tensor]]) -> None:
    """Change and read one decoder layer, in the order in which its modules run."""
    layer = model.get(f"{job['layers']}.{number}")

    def keep(name: str, tensor: Tensor) -> None:
        layers.setdefault(name, []).append(tensor)

    if number in job["attention"]:
        keep("queries", rows_of(layer.get(job["queries"]).output))
        keep("keys", rows_of(layer.get(job["keys"]).output))
    change_input(layer, job, number, "attended")
    if number in job["read_routers"] or {(number, "router"), (number, "experts")} & {*job["edits"]}:
        logits, weights, indices = changed_output(layer.get(job["router"]), job, number, "router")
        if number in job["read_routers"]:
            keep("router_logits", logits)
            keep("expert_weights", weights)
            keep("expert_indices", indices)
        change_input(layer, job, number, "experts")
    if (number, "layer") in job["edits"] or number in job["residual"]:
        output = changed_output(layer, job, number, "layer")
        residual = rows_of(output[0] if isinstance(output, tuple) else output)
        if number in job["residual"] and job["keep_residual"]:
            keep("residual", residual)
        if number in job["residual"] and job["lens_top"]:
            unembed = lambda rows: model.get(job["unembed"])(model.get(job["norm"])(rows))  # noqa: E731
            for name, tensor in read_lens(residual[:, None], unembed, job["vocab_size"], job["lens_top"]).items():
                keep(name, tensor[:, 0])


def changed_output(module: Any, job: dict[str, Any], number: int, point: str) -> Any:
    """Return a module's output; where there are edits, changed by them, for the model as well."""
    output, edits = module.output, job["edits"].get((number, point), ())
    for edit, rows in edits:
        output = edit(output, None if rows is None else torch.tensor(rows))
    if edits:
        module.output = output
    return output


def change_input(layer: Any, job: dict[str, Any], number: int, point: str) -> None:
    """Change what a module of a layer is called with, where there are edits."""
    edits = job["edits"].get((number, point), ())
    if not edits:
        return
    module = layer.get(job[point])
    args, kwargs = module.inputs
    for edit, rows in edits:
        args, kwargs = edit(args, kwargs, None if rows is None else torch.tensor(rows))
    module.inputs = (args, kwargs)


def rows_of(tensor: Tensor) -> Tensor:
    """Return [row, width] of [row, width] or [1, row, …]."""
    return tensor.detach() if tensor.ndim == 2 else tensor.detach().flatten(0, 1).flatten(1)


def trace_arrays(model: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Read one forward, and describe its distributions instead of giving them: those are by far the largest."""
    found = read_forward(model, job)
    logits, final, targets = found.pop("logits"), found.pop("final"), job["targets"]
    parts = [
        describe_draws(logits[start : min(start + ROWS, len(targets))], targets[start : start + ROWS], job["top"])
        for start in range(0, len(targets), ROWS)
    ]
    found |= {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    found["finite"] = torch.isfinite(final).all(dim=-1)
    if job["sinks"] and job["attention"]:
        sinks = [model.get(f"{job['layers']}.{number}.{job['sinks']}") for number in job["attention"]]
        found["sink_logits"] = torch.stack([sink.detach() for sink in sinks])
    return here(found)


def here(found: dict[str, Any]) -> dict[str, Any]:
    """Bring tensors to the host, so that they can be sent."""
    return {name: value.detach().cpu() if isinstance(value, Tensor) else value for name, value in found.items()}


def compare(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return how far the distributions of two forwards part: ``kl`` [token] of KL(before ‖ after), float64, in nats.

    With it ``before`` and ``after``, the experts used [token, layer, top_k], where there are any.
    """
    parts = []
    for start in range(0, len(before["logits"]), ROWS):
        p, q = (torch.log_softmax(found["logits"][start : start + ROWS].float(), dim=-1) for found in (before, after))
        parts.append((p.exp() * (p - q)).sum(-1, dtype=torch.float64))
    found = {"kl": torch.cat(parts)}
    for name, one in (("before", before), ("after", after)):
        if "expert_indices" in one:
            found[name] = one["expert_indices"]
    return here(found)


def draw(tracer: Any, seed: int) -> Tensor:
    """Return the token ids [1, token] of a generation with this seed; the random state there is as before."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        token_ids: Tensor = tracer.result
    return token_ids.detach().cpu()


def draw_changed(model: Any, tracer: Any, job: dict[str, Any], pieces: list[Tensor]) -> None:
    """Change every forward of a generation; ``pieces`` gets the prompt, then each token as it is drawn.

    The loop ends with the generation, in the middle of its body, and nothing after it runs.
    """
    known = job["num_known"]
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(job["seed"])
        for step in tracer.iter[:]:
            pieces.append(
                model.generator.streamer.output.detach().flatten().cpu()
            )  # before each forward, and the last
            job["shared"].clear()
            start, stop = (0, known) if step == 0 else (known + step - 1, known + step)
            now = {**job, "edits": edits_within(job["edits"], start, stop)}
            for number in range(job["num_layers"]):
                read_layer(model, now, number, {})


def edits_within(edits: dict[Any, Any], start: int, stop: int) -> dict[Any, Any]:
    """Return the edits of some rows of the sequence, for a forward over those."""
    found: dict[Any, Any] = {}
    for place, changes in edits.items():
        for edit, rows in changes:
            now = None if rows is None else rows[start:stop]
            if now is None or any(now):
                found.setdefault(place, []).append((edit, None if now is None or all(now) else now))
    return found
