"""Train the embedded model from scratch: `python -m workbench.tiny.train --out runs/tiny`.

Half an hour to an hour on two CPU cores. Data, initialisation and schedule follow from the seed; a run that was
stopped goes on exactly from its last checkpoint when the same command is given again.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from . import WEIGHTS
from .architecture import tiny_config, training_model
from .batches import IGNORED, Batch, Cursor, stream
from .muon import Muon
from .tokenizer import build_tokenizer

if TYPE_CHECKING:
    from transformers import GptOssForCausalLM, PreTrainedTokenizerFast

BATCHES_PER_STEP = 2
_WARMUP_STEPS = 100
_LOG_EVERY = 50


@dataclass(frozen=True)
class Recipe:
    """What a run is made of; two runs of one recipe see the same data in the same order."""

    seed: int = 0
    total_tokens: int = 24_800_000
    decay_from: float = 0.8716
    batch_tokens: int = 4096
    lr: float = 3e-3
    weight_decay: float = 0.05
    clip: float = 1.0
    balance: float = 0.01


class Training:
    """A model, its optimisers and its place in the data."""

    def __init__(self, recipe: Recipe) -> None:
        """Build tokenizer, freshly initialised model and optimisers from the seed."""
        self.recipe = recipe
        self.tokenizer = build_tokenizer()
        torch.manual_seed(recipe.seed)
        self.model = training_model(tiny_config(self.tokenizer)).train()
        self.params = dict(self.model.named_parameters())
        matrices = [p for name, p in self.params.items() if _is_hidden_matrix(name, p)]
        vectors = [p for name, p in self.params.items() if p.ndim == 1 or name.endswith("_bias")]
        taken = {id(p) for p in matrices + vectors}
        others = [p for p in self.params.values() if id(p) not in taken]
        self.muon = Muon(matrices, recipe.lr, recipe.weight_decay)
        self.adamw = torch.optim.AdamW(
            [
                {"params": others, "weight_decay": recipe.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=recipe.lr,
            betas=(0.9, 0.98),
        )
        self.cursor = Cursor()
        self.step = 0

    def batches(self) -> Iterator[list[Batch]]:
        """The steps' batches from where the run stands."""
        recipe = self.recipe
        return stream(
            self.tokenizer,
            recipe.seed,
            recipe.decay_from * recipe.total_tokens,
            recipe.batch_tokens,
            BATCHES_PER_STEP,
            self.cursor,
        )

    def learning_rate(self) -> float:
        """Linear warm-up by steps; constant; linear decay to zero from the share `decay_from` of the tokens on."""
        progress = self.cursor.tokens / self.recipe.total_tokens
        warm_up = min(1.0, (self.step + 1) / _WARMUP_STEPS)
        return self.recipe.lr * warm_up * max(0.0, min(1.0, (1 - progress) / (1 - self.recipe.decay_from)))

    def update(self, step: list[Batch], rank: int, num_processes: int) -> "Measured":
        """One optimiser step on the batches of all processes; this one computes every num_processes-th."""
        num_trained = sum(batch.num_trained for batch in step)
        measured = Measured()
        self.model.zero_grad(set_to_none=False)
        for batch in step[rank::num_processes]:
            measured.add(self._backward(batch, num_trained))
        grads = [p.grad for p in self.params.values() if p.grad is not None]
        if num_processes > 1:
            measured.loss = _sum_over_processes(grads, measured.loss)
        torch.nn.utils.clip_grad_norm_(self.params.values(), self.recipe.clip, error_if_nonfinite=True)
        for optimiser in (self.muon, self.adamw):
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate()
            optimiser.step()
        self.step += 1
        return measured

    def _backward(self, batch: Batch, num_trained: int) -> "Measured":
        """Add one batch's gradients; the balance loss is averaged over the batches of the step."""
        with _router_logits(self.model) as router_logits:
            hidden = self.model.model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        trained = batch.labels != IGNORED
        logits = self.model.lm_head(hidden[trained])
        loss = F.cross_entropy(logits, batch.labels[trained], reduction="sum") / num_trained
        real = (batch.input_ids != self.tokenizer.pad_token_id).flatten()
        shares_and_balance = [balance_loss(layer[real]) for layer in router_logits]
        balance = torch.stack([value for _, value in shares_and_balance]).sum()
        (loss + self.recipe.balance / BATCHES_PER_STEP * balance).backward()  # type: ignore[no-untyped-call]
        return Measured(loss.item(), [share for share, _ in shares_and_balance])

    def save(self, path: Path) -> None:
        """Write a checkpoint: weights, optimiser state, place in the data; renamed into place when whole."""
        tensors = {f"model/{name}": p.detach() for name, p in self.params.items()}
        for name, param in self.params.items():
            for optimiser in (self.muon, self.adamw):
                for key, value in optimiser.state.get(param, {}).items():
                    tensors[f"{key}/{name}"] = value
        about = {"recipe": asdict(self.recipe), "cursor": asdict(self.cursor), "step": self.step}
        part = path.with_suffix(".part")
        save_file(tensors, part, metadata={"training": json.dumps(about)})
        part.replace(path)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same recipe."""
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["training"])
            if Recipe(**about["recipe"]) != self.recipe:
                raise ValueError(
                    f"{path} is a checkpoint of another recipe: expected {asdict(self.recipe)}, "
                    f"but it has {about['recipe']}; give the same options or another --out"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        self.cursor, self.step = Cursor(**about["cursor"]), about["step"]
        names = {id(p): name for name, p in self.params.items()}
        for name, param in self.params.items():
            param.data.copy_(tensors[f"model/{name}"])
        for optimiser, keys in ((self.muon, ("momentum_buffer",)), (self.adamw, ("step", "exp_avg", "exp_avg_sq"))):
            for group in optimiser.param_groups:
                for param in group["params"]:
                    optimiser.state[param] = {key: tensors[f"{key}/{names[id(param)]}"] for key in keys}


@dataclass
class Measured:
    """Loss of a step, and each layer's share of choices per expert, in one batch of it."""

    loss: float = 0.0
    expert_shares: list[torch.Tensor] = field(default_factory=list)

    def add(self, other: "Measured") -> None:
        """Take in another batch of the step."""
        self.loss += other.loss
        self.expert_shares = other.expert_shares


def _is_hidden_matrix(name: str, param: torch.nn.Parameter) -> bool:
    """Attention and expert weights; not embeddings, router, biases, norms or sinks."""
    return name.endswith(("_proj", "_proj.weight")) and param.ndim >= 2


def balance_loss(router_logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each expert's share of the top-2 choices [expert], and the balance loss of one layer.

    router_logits [token, expert]. E · Σ share · mean probability, 1 where both are uniform (Fedus et al.,
    "Switch Transformers", 2021, eq. 4). Per layer: averaged over layers first, as transformers does it,
    one collapsed layer can hide behind another.
    """
    num_experts = router_logits.shape[-1]
    chosen = router_logits.topk(2, dim=-1).indices
    share = chosen.flatten().bincount(minlength=num_experts) / chosen.numel()
    return share, num_experts * (share * router_logits.softmax(dim=-1).mean(dim=0)).sum()


@contextmanager
def _router_logits(model: "GptOssForCausalLM") -> Iterator[list[torch.Tensor]]:
    logits: list[torch.Tensor] = []
    hooks = [
        layer.mlp.router.register_forward_hook(lambda _module, _inputs, out: logits.append(out[0]))
        for layer in model.model.layers
    ]
    try:
        yield logits
    finally:
        for hook in hooks:
            hook.remove()


def _sum_over_processes(grads: list[torch.Tensor], loss: float) -> float:
    flat = torch.cat([grad.flatten() for grad in grads] + [torch.tensor([loss])])
    dist.all_reduce(flat)
    offset = 0
    for grad in grads:
        grad.copy_(flat[offset : offset + grad.numel()].view_as(grad))
        offset += grad.numel()
    return float(flat[-1])


def export(model: "GptOssForCausalLM", tokenizer: "PreTrainedTokenizerFast", folder: Path) -> None:
    """Write weights in bf16, configuration, tokenizer and chat template in Hugging Face format."""
    from transformers import GptOssForCausalLM

    config = tiny_config(tokenizer)
    config.dtype = "bfloat16"
    shipped = GptOssForCausalLM(config)
    shipped.load_state_dict(model.state_dict())
    shipped.to(dtype=torch.bfloat16).save_pretrained(folder)  # type: ignore[call-arg]
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def run(
    recipe: Recipe,
    out: Path,
    max_steps: int | None,
    minutes: float,
    rank: int,
    num_processes: int,
    kind: type[Training] = Training,
) -> Training:
    """Train until the recipe's tokens or `max_steps` are reached, with a checkpoint every `minutes`."""
    torch.set_num_threads(1)
    training = kind(recipe)
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists():
        training.restore(checkpoint)
        if rank == 0:
            print(f"resuming at step {training.step}, {training.cursor.tokens:,} tokens", flush=True)
    log = _Log(out / "log.jsonl", recipe, training) if rank == 0 else None
    saved = time.monotonic()
    batches = training.batches()
    while training.cursor.tokens < recipe.total_tokens and (max_steps is None or training.step < max_steps):
        measured = training.update(next(batches), rank, num_processes)
        if log is not None:
            log.step(measured)
            if time.monotonic() - saved > 60 * minutes:
                training.save(checkpoint)
                saved = time.monotonic()
    if rank == 0:
        training.save(checkpoint)
    return training


class _Log:
    """One line every fifty steps, on the screen and in a file."""

    def __init__(self, path: Path, recipe: Recipe, training: Training) -> None:
        self.path, self.recipe, self.training = path, recipe, training
        self.losses: list[float] = []
        self.start, self.tokens = time.monotonic(), training.cursor.tokens

    def step(self, measured: Measured) -> None:
        self.losses.append(measured.loss)
        if self.training.step % _LOG_EVERY and self.training.step > 10:
            return
        seconds, tokens = time.monotonic() - self.start, self.training.cursor.tokens
        rate = (tokens - self.tokens) / seconds
        line = {
            "step": self.training.step,
            "tokens": tokens,
            "loss": round(sum(self.losses) / len(self.losses), 4),
            "lr": round(self.training.learning_rate(), 6),
            "tokens_per_second": round(rate),
            "minutes_left": round((self.recipe.total_tokens - tokens) / rate / 60, 1),
            "expert_share_range": [
                [round(float(share.min()), 3), round(float(share.max()), 3)] for share in measured.expert_shares
            ],
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(" ".join(f"{key}={value}" for key, value in line.items()), flush=True)
        self.losses, self.start, self.tokens = [], time.monotonic(), tokens


def _worker(
    rank: int,
    recipe: Recipe,
    out: Path,
    max_steps: int | None,
    minutes: float,
    num: int,
    kind: type[Training],
    store: str,
) -> None:
    _die_with_parent()
    _join(rank, num, store)
    run(recipe, out, max_steps, minutes, rank, num, kind)
    dist.destroy_process_group()


def _join(rank: int, num_processes: int, store: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    dist.init_process_group("gloo", init_method=Path(store).as_uri(), rank=rank, world_size=num_processes)


def _die_with_parent() -> None:
    """A killed parent cannot end its children, so each child watches for a new parent id."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def train(
    recipe: Recipe,
    out: Path,
    num_processes: int = 2,
    max_steps: int | None = None,
    minutes: float = 2.5,
    kind: type[Training] = Training,
) -> Training:
    """Train with `num_processes` single-thread processes, of which this is the first; ``kind`` is what trains."""
    out.mkdir(parents=True, exist_ok=True)
    if num_processes == 1:
        return run(recipe, out, max_steps, minutes, 0, 1, kind)
    context = torch.multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        children = [
            context.Process(
                target=_worker, args=(rank, recipe, out, max_steps, minutes, num_processes, kind, store), daemon=True
            )
            for rank in range(1, num_processes)
        ]
        for child in children:
            child.start()
        _join(0, num_processes, store)
        training = run(recipe, out, max_steps, minutes, 0, num_processes, kind)
        dist.destroy_process_group()
        for child in children:
            child.join()
    return training


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    default = Recipe()
    parser = argparse.ArgumentParser(prog="python -m workbench.tiny.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"), help="folder for checkpoint and log")
    parser.add_argument("--export", type=Path, help=f"write the model here when done, e.g. {WEIGHTS.name}/")
    parser.add_argument("--tokens", type=int, default=default.total_tokens, help="length of the whole schedule")
    parser.add_argument("--steps", type=int, help="stop after so many steps, schedule unchanged")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--balance", type=float, default=default.balance, help="weight of the balance loss")
    parser.add_argument("--batch-tokens", type=int, default=default.batch_tokens)
    parser.add_argument("--processes", type=int, choices=(1, 2), default=2)
    parser.add_argument("--minutes", type=float, default=2.5, help="time between checkpoints")
    options = parser.parse_args(arguments)
    recipe = Recipe(
        seed=options.seed,
        total_tokens=options.tokens,
        batch_tokens=options.batch_tokens,
        balance=options.balance,
    )
    training = train(recipe, options.out, options.processes, options.steps, options.minutes)
    if options.export is not None:
        export(training.model, training.tokenizer, options.export)
        print(f"wrote {options.export}")


if __name__ == "__main__":
    main()
