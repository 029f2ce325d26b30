"""One of the processes that hold a model between them; test_expert_parallel.py starts it, once a rank.

    python parallel_rank.py RANK RANKS FOLDER

The folder holds the models; the traces and the errors of this rank are written into it.
"""

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

import workbench as wb

QUESTION = "47+85=?"
EVERYTHING = wb.CaptureSpec(residual=True)
NEW_TOKENS = 40


def captures(model: wb.Model, path: Path | None = None) -> dict[str, wb.Trace]:
    """Capture in every way; each rank must make the same calls."""
    greedy = wb.capture(model, QUESTION, temperature=0, max_new_tokens=NEW_TOKENS, capture=EVERYTHING, path=path)
    return {
        "greedy": greedy,
        "sampled": wb.capture(model, QUESTION, seed=5, max_new_tokens=NEW_TOKENS),
        "replay": wb.replay(model, greedy, capture=EVERYTHING),
        "forced": wb.replay(model, greedy, force_routing=True),
    }


def load(folder: Path, **sizes: int) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", distributed_config=DistributedConfig(**sizes)
    )


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except wb.ModelError as error:
        return str(error)
    return "none"


def main(rank: int, ranks: int, folder: Path) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", meeting, rank=rank, world_size=ranks, timeout=timedelta(seconds=180))
    tokenizer = wb.load("tiny", device="cpu").tokenizer

    model = wb.load(load(folder / "gpt-oss", tp_size=ranks, ep_size=ranks), tokenizer=tokenizer)
    held = model.layers[0].mlp.experts.down_proj.to_local()
    for name, trace in captures(model, folder / "written.safetensors" if rank == 0 else None).items():
        trace.save(folder / f"{name}-{rank}.safetensors")

    sliced = load(folder / "gpt-oss", fsdp_size=ranks, ep_size=ranks)
    staged = load(folder / "gpt-oss", pp_size=ranks)
    split_heads = wb.load(load(folder / "mixtral", tp_size=ranks), tokenizer=tokenizer)
    wb.capture(split_heads, QUESTION, max_new_tokens=9, temperature=0, capture=wb.CaptureSpec(attention=False)).save(
        folder / f"split_heads-{rank}.safetensors"
    )
    facts = {
        "experts held": len(held),
        "sliced": error_of(lambda: wb.load(sliced, tokenizer=tokenizer)),
        "staged": error_of(lambda: wb.load(staged, tokenizer=tokenizer)),
        "split heads": error_of(lambda: wb.capture(split_heads, QUESTION, max_new_tokens=9)),
    }
    (folder / f"facts-{rank}.json").write_text(json.dumps(facts), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
