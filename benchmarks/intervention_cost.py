"""What an intervention costs: seconds beside plain generation, hand-written hooks and nnsight, in one run.

    python benchmarks/intervention_cost.py [--rounds 11] [--tokens 32]

A random gpt-oss of 24 layers × 32 experts, top-4, in float32 on one thread, the one of `capture_cost`. The same prompt
and as many new tokens for all, greedy, and every way does its change in all 24 layers at every token, which is the
most it can come to. What is in the times: `intervene` from entering to leaving, and transformers' `generate` inside.
An experiment is a rollout with capture and a reading of the baseline beside it: its own row, for what it does.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TQDM_DISABLE="1")  # before the libraries read them

import torch
from _rounds import environment, measure, quartiles, ratio, verdict, write
from capture_cost import LAYERS, QUESTION, SIZES, SMALL, random_model, twin
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import logging

import workbench as wb
from workbench.experiments.attention import AblateHead, SuppressSpan
from workbench.experiments.experiment import experiment
from workbench.experiments.experts import RouteAround, ZeroContribution
from workbench.experiments.intervening import Intervention, intervene
from workbench.experiments.residual import AddVector
from workbench.harmony import render

EXPERT, HEAD, FACTOR = 5, 3, 2.0
EVERY = {layer: [EXPERT] for layer in range(LAYERS)}
PLAIN = "generate"
ROUTE, ZERO, ADD = "route around", "zero contribution", "add vector"
TARGETS = {f"{ROUTE}": 1.15, f"{ZERO}": 1.15, "ablate head": 1.15, "suppress span": 1.15, f"{ADD}": 1.15}

Way = Callable[[], Tensor]


def generate_with(model: wb.Model, prompt: Tensor, config: GenerationConfig) -> Way:
    def generate() -> Tensor:
        with torch.no_grad():
            ids: Tensor = model.hf.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
        return ids[0]

    return generate


def variants(model: wb.Model) -> dict[str, Intervention]:
    vector = torch.linspace(-1, 1, model.d_model)
    heads = {layer: [HEAD] for layer in range(LAYERS)}
    return {
        ROUTE: RouteAround(EVERY),
        ZERO: ZeroContribution(EVERY),
        "ablate head": AblateHead(heads),
        "suppress span": SuppressSpan((2, 9), heads),
        ADD: AddVector(LAYERS // 2, vector, factor=FACTOR),
    }


@contextmanager
def hooks(model: wb.Model, kind: str) -> Iterator[None]:
    """Put the shortest hook that a user would write for the whole sequence."""

    def around(_module: Any, _args: Any, output: Any) -> Any:
        logits = output[0].clone()
        logits[:, EXPERT] = -torch.inf
        values, indices = torch.topk(logits, 4, dim=-1)
        return output[0], torch.softmax(values, dim=-1), indices

    def zero(_module: Any, args: Any) -> Any:
        rows, indices, weights = args
        return rows, indices, weights.masked_fill(indices == EXPERT, 0)

    vector = FACTOR * torch.linspace(-1, 1, model.d_model)
    handles = []
    if kind == ADD:
        handles.append(model.layers[LAYERS // 2].register_forward_hook(lambda _m, _a, output: output + vector))
    for layer in model.layers:
        if kind == ROUTE:
            handles.append(layer.mlp.router.register_forward_hook(around))
        elif kind == ZERO:
            handles.append(layer.mlp.experts.register_forward_pre_hook(zero))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def nnsight_ways(model: wb.Model, prompt: Tensor, config: GenerationConfig) -> dict[str, Way]:
    """The same by nnsight, on its own modules, which it changes for good."""
    from nnsight import save

    lm = wb.load(twin(model.hf), tokenizer=model.tokenizer).nnsight
    steps = config.max_new_tokens
    vector = FACTOR * torch.linspace(-1, 1, model.d_model)

    def around() -> Tensor:
        with torch.no_grad(), lm.generate(prompt, generation_config=config) as tracer:
            for _ in tracer.iter[:steps]:
                for layer in lm.model.layers:
                    logits = layer.mlp.router.output[0]
                    masked = logits.clone()
                    masked[:, EXPERT] = -torch.inf
                    values, indices = torch.topk(masked, 4, dim=-1)
                    layer.mlp.router.output = (logits, torch.softmax(values, dim=-1), indices)
            ids = save(tracer.result)
        return ids[0]

    def add() -> Tensor:
        with torch.no_grad(), lm.generate(prompt, generation_config=config) as tracer:
            for _ in tracer.iter[:steps]:
                lm.model.layers[LAYERS // 2].output = lm.model.layers[LAYERS // 2].output + vector
            ids = save(tracer.result)
        return ids[0]

    return {f"nnsight: {ROUTE}": around, f"nnsight: {ADD}": add}


def ways(model: wb.Model, new_tokens: int) -> dict[str, Way]:
    prompt = torch.tensor([render(model.tokenizer, QUESTION, "high")])
    config = GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0, disable_compile=True
    )
    plain = generate_with(model, prompt, config)
    found: dict[str, Way] = {PLAIN: plain, f"{PLAIN}, again": plain}

    def intervened(change: Intervention) -> Way:
        def run() -> Tensor:
            with intervene(model, change):
                return plain()

        return run

    def hooked(kind: str) -> Way:
        def run() -> Tensor:
            with hooks(model, kind):
                return plain()

        return run

    found |= {name: intervened(change) for name, change in variants(model).items()}
    found |= {f"hooks by hand: {kind}": hooked(kind) for kind in (ROUTE, ZERO, ADD)}
    found |= nnsight_ways(model, prompt, config)

    spec = wb.CaptureSpec(attention=False, lens=False)
    options: Any = {"effort": "high", "temperature": 0, "max_new_tokens": new_tokens, "capture": spec}
    baseline = wb.capture(model, QUESTION, **options)

    def captured() -> Tensor:
        with intervene(model, RouteAround(EVERY)):
            return torch.from_numpy(wb.capture(model, QUESTION, **options).arrays["token_ids"])

    def whole() -> Tensor:
        return torch.from_numpy(experiment(model, baseline, RouteAround(EVERY)).trace.arrays["token_ids"])

    return found | {f"{ROUTE}, captured": captured, f"{ROUTE}, experiment": whole}


def check(found: dict[str, Way]) -> None:
    """Hold that all ways of one change generate the same tokens, and others than the unchanged model."""
    ids = {name: way() for name, way in found.items()}
    for kind in (ROUTE, ZERO, ADD):
        assert not torch.equal(ids[kind], ids[PLAIN]), f"{kind} changes nothing"
        for name in (name for name in ids if kind in name):
            assert torch.equal(ids[name], ids[kind]), f"{name} generates other tokens"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=11)
    options.add_argument("--tokens", type=int, default=32, help="new tokens")
    options.add_argument("--small", action="store_true", help="a narrow model, to try the benchmark itself")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    sizes = SIZES | (SMALL if given.small else {})
    model = random_model(sizes)
    about = environment("moe-workbench", "torch", "transformers", "nnsight")
    print(f"{model}; {sizes}; one thread of {about['cpu']}, {given.rounds} rounds; {about['versions']}")
    found = ways(model, given.tokens)
    check(found)
    times = measure(found, given.rounds)
    print(f"\n{given.tokens} new tokens, every layer changed, beside transformers' generate")
    print(f"{'':34} {'ms/token [quartiles]':>24} {'ratio [95 %]':>22} {'CPU ratio':>10}")
    measured = {}
    for name, taken in times.items():
        low, middle, high = quartiles([1000 * seconds / given.tokens for seconds in taken.wall])
        wall, cpu = ratio(taken.wall, times[PLAIN].wall), ratio(taken.cpu, times[PLAIN].cpu)
        interval = "{:.3f}–{:.3f}".format(*wall["interval"])
        print(
            f"{name:34} {f'{middle:.2f} [{low:.2f}–{high:.2f}]':>24} {wall['median']:>8.3f} [{interval}]"
            f" {cpu['median']:>10.3f}"
        )
        measured[name] = {"ms_per_token": [low, middle, high], "ratio": wall, "cpu_ratio": cpu, "seconds": taken.wall}
    print()
    targets = [verdict(name, measured[name]["ratio"]["median"], target) for name, target in TARGETS.items()]
    report = {**about, "model": sizes, "new_tokens": given.tokens, "rounds": given.rounds}
    write("intervention_cost", report | {"measured": measured, "targets": targets}, given.out)


if __name__ == "__main__":
    main()
