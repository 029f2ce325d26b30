"""What capture costs: seconds beside plain generation, and beside others that read the same model, in one run.

    python benchmarks/capture_cost.py [--rounds 30] [--tokens 128] [--replayed 512]

A random gpt-oss of 24 layers × 32 experts, top-4, in float32 on one thread, in which a decode step takes 20–40 ms on
a quiet core. Its unembedding is 14 % of the active parameters; in gpt-oss-20b it is 16 %, and log-probabilities and
lens cost in proportion. The same prompt and as many new tokens for all, greedy. Live ways are beside plain
`generate`; a replay reads a fixed sequence and is beside one plain forward over it.

What is in the times: all of `wb.capture` or `wb.replay`, from the call to the trace in memory: the self-check's
one-token forward, the forward of the last token, which generation never feeds, and the log-probability, entropy and
top 5 over the full vocabulary of every token, which no spec leaves out. nnsight and TransformerLens read the router
only, and give its logits, weights and indices as arrays. Transformers' own flags are in a forward, not in a
generation: there `output_router_logits` is silently dropped.
"""

import argparse
import os
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before the libraries read them

import numpy as np
import torch
from _rounds import environment, measure, quartiles, ratio, verdict, write
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig, GptOssConfig, GptOssForCausalLM
from transformers.utils import logging

import workbench as wb
from workbench.harmony import render

QUESTION = "91 + 40 + 98 + 66 = ?"
SIZES = {
    "num_hidden_layers": 24,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "sliding_window": 64,
    "vocab_size": 16_384,
    "max_position_embeddings": 4096,
}
LAYERS = SIZES["num_hidden_layers"]
SMALL = {"hidden_size": 32, "intermediate_size": 32, "vocab_size": 600}

PLAIN, FORWARD = "generate", "forward"
ROUTER = wb.CaptureSpec(attention=False, lens=False)
ATTENTION = wb.CaptureSpec(lens=False)
ALL_BUT_LENS = wb.CaptureSpec(lens=False, residual=True)
EVERYTHING = wb.CaptureSpec(residual=True)
TARGETS = {"capture: router": 1.03, "capture: router, queries, keys": 1.06, "replay: everything": 1.15}

Arrays = dict[str, NDArray[Any]]
Way = Callable[[], Arrays]


def random_model(sizes: dict[str, int]) -> wb.Model:
    torch.manual_seed(0)
    config = GptOssConfig(
        **sizes,
        initializer_range=0.1,
        pad_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 150_000.0},
    )
    hf = GptOssForCausalLM(config).eval()
    hf.generation_config.eos_token_id = []
    return wb.load(hf, tokenizer=wb.load("tiny", device="cpu").tokenizer)


def twin(hf: Any) -> Any:
    """Copy the modules but not the weights: others change the modules they are given for good."""
    copy = deepcopy(hf, {id(tensor): tensor for tensor in [*hf.parameters(), *hf.buffers()]})
    copy.config.architectures = [type(hf).__name__]
    return copy


def live_ways(model: wb.Model, new_tokens: int) -> dict[str, Way]:
    prompt = torch.tensor([render(model.tokenizer, QUESTION, "high")])
    config = GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0, disable_compile=True
    )

    def plain() -> Arrays:
        with torch.no_grad():
            ids = model.hf.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
        return {"token_ids": ids[0].numpy()}

    def capture(spec: wb.CaptureSpec) -> Arrays:
        trace = wb.capture(model, QUESTION, effort="high", temperature=0, max_new_tokens=new_tokens, capture=spec)
        return dict(trace.arrays)

    return {
        PLAIN: plain,
        f"{PLAIN}, again": plain,
        "capture: router": partial(capture, ROUTER),
        "capture: router, queries, keys": partial(capture, ATTENTION),
        "capture: everything": partial(capture, EVERYTHING),
        "nnsight: router": nnsight_way(model, prompt, config),
        "TransformerLens: router": transformer_lens_way(model, prompt, new_tokens),
    }


def nnsight_way(model: wb.Model, prompt: Tensor, config: GenerationConfig) -> Way:
    """Read every router at every step of one generation."""
    from nnsight import save

    lm = wb.load(twin(model.hf), tokenizer=model.tokenizer).nnsight
    steps = config.max_new_tokens

    def run() -> Arrays:
        with torch.no_grad(), lm.generate(prompt, generation_config=config) as tracer:
            seen = save([])
            for _ in tracer.iter[:steps]:
                for layer in lm.model.layers:
                    seen.append(layer.mlp.router.output)
            ids = save(tracer.result)
        logits, weights, indices = zip(*seen, strict=True)
        return {"token_ids": ids[0].numpy(), **routing(logits, weights, indices)}

    return run


def transformer_lens_way(model: wb.Model, prompt: Tensor, new_tokens: int) -> Way:
    """Hook every router during one generation of transformers, as TransformerLens hands it on."""
    bridge = bridge_of(model)
    points = ("hook_out", "hook_expert_weights", "hook_expert_indices")

    def run() -> Arrays:
        seen: dict[str, list[Tensor]] = {point: [] for point in points}

        def keep(value: Tensor, hook: Any) -> None:
            seen[hook.name.rpartition(".")[2]].append(value)

        hooks = [(f"blocks.{layer}.mlp.router.{point}", keep) for layer in range(LAYERS) for point in points]
        with torch.no_grad(), bridge.hooks(fwd_hooks=hooks):
            ids = bridge.hf_generate(
                prompt, max_new_tokens=new_tokens, do_sample=False, stop_at_eos=False, return_type="tokens"
            )
        return {"token_ids": ids[0].numpy(), **routing(*seen.values())}

    return run


def bridge_of(model: wb.Model) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(
        "local", hf_model=twin(model.hf), tokenizer=model.tokenizer, device="cpu"
    )


def routing(logits: Sequence[Tensor], weights: Sequence[Tensor], indices: Sequence[Tensor]) -> Arrays:
    """Make arrays [token, layer, …] of what was seen, step after step, layer after layer."""
    named = {"router_logits": logits, "expert_weights": weights, "expert_indices": indices}
    return {
        name: torch.stack([torch.cat(list(seen[layer::LAYERS])) for layer in range(LAYERS)], dim=1).numpy()
        for name, seen in named.items()
    }


def replay_ways(model: wb.Model, ids: Tensor) -> dict[str, Way]:
    bridge, listed = bridge_of(model), ids[0].tolist()

    def forward(**flags: bool) -> Arrays:
        with torch.no_grad():
            out = model.hf(input_ids=ids, **flags)
        many = {name: out.get(name) or () for name in ("router_logits", "hidden_states", "attentions")}
        return {f"{name} {i}": t.numpy() for name, tensors in many.items() for i, t in enumerate(tensors)}

    def replay(spec: wb.CaptureSpec) -> Arrays:
        return dict(wb.replay(model, listed, capture=spec).arrays)

    def run_with_cache() -> Arrays:
        with torch.no_grad():
            _, cache = bridge.run_with_cache(ids, names_filter=lambda name: ".mlp.router.hook_" in name)
        return {name: value.numpy() for name, value in cache.items() if not name.endswith("hook_in")}

    everything = {"output_router_logits": True, "output_hidden_states": True, "output_attentions": True}
    return {
        FORWARD: forward,
        f"{FORWARD}, again": forward,
        "replay: router": partial(replay, ROUTER),
        "replay: everything but the lens": partial(replay, ALL_BUT_LENS),
        "replay: everything": partial(replay, EVERYTHING),
        "transformers' flags": partial(forward, **everything),
        "TransformerLens: run_with_cache, router": run_with_cache,
    }


def check(ways: dict[str, Way]) -> dict[str, float]:
    """Hold that live ways generate the same tokens and see the same routing; return each way's bytes per token."""
    found = {name: way() for name, way in ways.items()}
    expected = found["capture: router"]
    for name, arrays in found.items():
        np.testing.assert_array_equal(arrays["token_ids"], expected["token_ids"], name)
        if "router_logits" in arrays:
            rows = len(arrays["router_logits"])
            assert rows >= len(expected["token_ids"]) - 1, f"{name} saw {rows} rows"
            np.testing.assert_allclose(arrays["router_logits"], expected["router_logits"][:rows], atol=1e-4)
            np.testing.assert_array_equal(arrays["expert_indices"], expected["expert_indices"][:rows], name)
    return {name: per_token(arrays, len(expected["token_ids"])) for name, arrays in found.items()}


def per_token(arrays: Arrays, tokens: int) -> float:
    own = (array.nbytes for name, array in arrays.items() if not name.startswith("vocab_") and name != "token_ids")
    return sum(own) / tokens


def table(
    ways: dict[str, Way], base: str, rounds: int, bytes_per_token: dict[str, float], tokens: int
) -> dict[str, Any]:
    """Measure and print; return what is printed."""
    times = measure(ways, rounds)
    print(f"{'':40} {'ms/token [quartiles]':>24} {'ratio [95 %]':>24} {'CPU ratio':>10} {'bytes/token':>12}")
    found = {}
    for name, taken in times.items():
        low, middle, high = quartiles([1000 * s / tokens for s in taken.wall])
        wall, cpu = ratio(taken.wall, times[base].wall), ratio(taken.cpu, times[base].cpu)
        interval = "{:.3f}–{:.3f}".format(*wall["interval"])
        print(
            f"{name:40} {f'{middle:.2f} [{low:.2f}–{high:.2f}]':>24} {wall['median']:>10.3f} [{interval}]"
            f" {cpu['median']:>10.3f} {bytes_per_token[name]:>12,.0f}"
        )
        found[name] = {
            "ms_per_token": [low, middle, high],
            "ratio": wall,
            "cpu_ratio": cpu,
            "bytes_per_token": bytes_per_token[name],
            "seconds": taken.wall,
        }
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--tokens", type=int, default=128, help="new tokens of the live ways")
    options.add_argument("--replayed", type=int, default=512, help="tokens of the replayed sequence")
    options.add_argument("--small", action="store_true", help="a narrow model, to try the benchmark itself")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="transformer_lens")
    sizes = SIZES | (SMALL if given.small else {})
    model = random_model(sizes)
    about = environment("moe-workbench", "torch", "transformers", "nnsight", "transformer-lens")
    print(f"{model}; {sizes}; one thread of {about['cpu']}, {given.rounds} rounds; {about['versions']}")

    live = live_ways(model, given.tokens)
    bytes_per_token = check(live)
    print(f"\nlive, {given.tokens} new tokens, beside transformers' generate")
    measured = {"live": table(live, PLAIN, given.rounds, bytes_per_token, given.tokens)}

    ids = torch.randint(0, 500, (1, given.replayed), generator=torch.manual_seed(1))
    read = replay_ways(model, ids)
    bytes_per_token = {name: per_token(way(), given.replayed) for name, way in read.items()}
    print(f"\nreplay of {given.replayed} tokens, beside one forward that gives all logits")
    measured["replay"] = table(read, FORWARD, given.rounds, bytes_per_token, given.replayed)

    print()
    rows = measured["live"] | measured["replay"]
    targets = [verdict(name, rows[name]["ratio"]["median"], target) for name, target in TARGETS.items()]
    sizes_of_run = {"model": sizes, "new_tokens": given.tokens, "replayed_tokens": given.replayed}
    report = {**about, **sizes_of_run, "rounds": given.rounds, "measured": measured, "targets": targets}
    write("capture_cost", report, given.out)


if __name__ == "__main__":
    main()
