"""A mixture of experts small enough to be trained while a class watches, with and without a balance loss.

It predicts the next token of the embedded model's own texts from the few tokens before it: embeddings, one MoE layer
by gpt-oss' convention (the k highest router logits, a softmax over these alone), a matrix onto the vocabulary.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.course.predictions import CourseError
from workbench.course.training_steps import TrainingStep
from workbench.tiny.batches import IGNORED, encode
from workbench.tiny.grammar import draw_example

__all__ = ["Contexts", "RouterRecipe", "SmallMoE", "balance_loss", "text_contexts", "train_router"]


@dataclass(frozen=True)
class RouterRecipe:
    """What a run is made of; two runs of one recipe are alike on one machine."""

    balance: float = 0.0
    """α, the weight of the balance loss; 0 trains without it"""
    seed: int = 0
    """of the initial weights and of the order of the texts"""
    shared: float = 1.0
    """length of what all token vectors have in common, over the length of what tells them apart; 0 for nothing"""
    num_experts: int = 8
    top_k: int = 2
    d_model: int = 32
    d_expert: int = 32
    batch: int = 256
    """tokens of a step"""
    lr: float = 0.01
    """of Adam"""

    def __post_init__(self) -> None:
        """Raise `CourseError` for a router without a choice, or for amounts below 0."""
        if not 1 <= self.top_k < self.num_experts:
            raise CourseError(f"expected top_k from 1 to {self.num_experts - 1}, got {self.top_k}: nothing to choose")
        if self.balance < 0 or self.shared < 0:
            raise CourseError(f"expected balance and shared of 0 or more, got {self.balance} and {self.shared}")


@dataclass(frozen=True)
class Contexts:
    """Tokens to predict, each with the tokens before it.

    Attributes:
        tokens: [context, width + 1] int64; the last one is to be predicted.
        vocab_size: how many token ids there are.
    """

    tokens: Tensor
    vocab_size: int


def text_contexts(tokenizer: Any, num_texts: int = 150, width: int = 3, seed: int = 0) -> Contexts:
    """Draw texts of the embedded model's grammar, and take from each what an assistant writes.

    Args:
        tokenizer: of the embedded model.
        num_texts: questions with their reasoning and answer, about seventy tokens of it each.
        width: how many tokens stand before the one that is to be predicted.
        seed: of the texts.
    """
    rng = random.Random(seed)
    rows: list[list[int]] = []
    for _ in range(num_texts):
        ids, labels = encode(draw_example(rng), tokenizer)
        wanted = [at for at, label in enumerate(labels) if label != IGNORED]
        rows += [[*ids[at - width + 1 : at + 1], labels[at]] for at in wanted]
    return Contexts(torch.tensor(rows), len(tokenizer))


class SmallMoE(torch.nn.Module):
    """Embeddings, one MoE layer, a matrix onto the vocabulary; some 80,000 parameters at the default sizes.

    Args:
        recipe: the sizes, and the seed of the weights.
        vocab_size: how many token ids there are.
        width: how many tokens are read.
    """

    def __init__(self, recipe: RouterRecipe, vocab_size: int, width: int) -> None:
        """Draw the initial weights."""
        super().__init__()
        self.recipe = recipe
        generator = torch.Generator().manual_seed(recipe.seed)
        experts, d_model, d_expert = recipe.num_experts, recipe.d_model, recipe.d_expert

        def drawn(*shape: int, scale: float) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.randn(*shape, generator=generator) * scale)

        self.embedding = drawn(width, vocab_size, d_model, scale=width**-0.5)
        self.shared = drawn(d_model, scale=recipe.shared)
        self.router = drawn(experts, d_model, scale=0.02)
        self.up = drawn(experts, d_model, d_expert, scale=d_model**-0.5)
        self.down = drawn(experts, d_expert, d_model, scale=d_expert**-0.5)
        self.unembedding = drawn(d_model, vocab_size, scale=d_model**-0.5)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Read tokens [context, width]; return logits [context, vocabulary] and router logits [context, expert]."""
        width = torch.arange(tokens.shape[1])
        x = F.rms_norm(self.embedding[width, tokens].sum(1) + self.shared, (self.recipe.d_model,))
        router_logits = x @ self.router.T
        chosen = router_logits.topk(self.recipe.top_k, dim=-1)
        weights = torch.zeros_like(router_logits).scatter(-1, chosen.indices, chosen.values.softmax(-1))
        # All experts are run, and those that were not chosen are multiplied by 0: quicker here than gathering.
        hidden = torch.einsum("td,edh->teh", x, self.up).relu()
        y = torch.einsum("teh,ehd,te->td", hidden, self.down, weights)
        return F.rms_norm(y, (self.recipe.d_model,)) @ self.unembedding, router_logits


def balance_loss(router_logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Return each expert's share of the choices [expert], and ``E · Σ_e share_e · P_e``, without α.

    ``P_e`` is the mean probability of the full softmax (Fedus et al., "Switch Transformers", 2022, eq. 4–6, there for
    k = 1). It is 1 where both are uniform, E where one expert has both, and E/k where k experts do. The shares are
    counts, through which no gradient flows: the probabilities of busy experts are pushed down.

    Args:
        router_logits: [token, expert].
        top_k: experts per token.
    """
    num_experts = router_logits.shape[-1]
    chosen = router_logits.topk(top_k, dim=-1).indices
    share = chosen.flatten().bincount(minlength=num_experts) / chosen.numel()
    return share, num_experts * (share * router_logits.softmax(-1).mean(0)).sum()


def train_router(contexts: Contexts, recipe: RouterRecipe, steps: int) -> Iterator[TrainingStep]:
    """Train a small MoE from scratch, and yield what each step measured.

    Args:
        contexts: what to predict from what; see `text_contexts`.
        recipe: sizes, seed, and the weight of the balance loss.
        steps: updates, at least 1.

    Raises:
        CourseError: no step or no context.
    """
    if steps < 1 or not len(contexts.tokens):
        raise CourseError(f"expected a step and a context at least, got {steps} and {len(contexts.tokens)}")
    model = SmallMoE(recipe, contexts.vocab_size, contexts.tokens.shape[1] - 1)
    optimiser = torch.optim.Adam(model.parameters(), recipe.lr)
    generator = torch.Generator().manual_seed(recipe.seed)
    for step in range(1, steps + 1):
        batch = contexts.tokens[torch.randint(len(contexts.tokens), (recipe.batch,), generator=generator)]
        logits, router_logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits, batch[:, -1])
        load, balance = balance_loss(router_logits, recipe.top_k)
        optimiser.zero_grad()
        (loss + recipe.balance * balance).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        yield TrainingStep(step, load.double().numpy(), loss.item(), balance.item())
