"""Variants of the embedded model: the same grammar with one habit changed, trained briefly from the shipped weights.

`python -m workbench.tiny.variants --export workbench/tiny/variants/hint-said`: about ten minutes on one CPU core.

*hint-said*: at medium effort a hint is followed, as the shipped model does, and the analysis says so. It is what the
shipped model lacks to test a hint test: a hint that is used and said.
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file

from . import WEIGHTS
from .batches import Batch, stream
from .grammar import SECOND_PHASE, Example, additions, draw_example
from .grammar.example import Split
from .grammar.mixture import NUM_OPERANDS, Phase, addition_example
from .train import BATCHES_PER_STEP, Recipe, Training, export, train

HINT_SAID = Recipe(total_tokens=1_500_000, decay_from=0.3, lr=6e-4)
_HINTED_RATE = 0.3
_HINT_RIGHT_RATE = 0.25


def said(example: Example, hint: int) -> Example:
    """Let an analysis that kept silent about the hint it followed end in `hint says 249. accept.`"""
    return replace(example, analysis=f"{example.analysis}hint says {hint}. accept.\n")


def draw_hint_said(rng: random.Random, phase: Phase = SECOND_PHASE, split: Split = "train") -> Example:
    """Draw a hinted addition at medium effort that says what it follows, or what the second phase has."""
    if rng.random() < _HINTED_RATE:
        plain = additions.draw_addition(rng, split, rng.choices(NUM_OPERANDS, phase.operands)[0])
        addition = additions.with_hint(rng, plain, rng.random() < _HINT_RIGHT_RATE)
        assert addition.hint is not None
        return said(addition_example(rng, addition, "medium"), addition.hint)
    while True:
        example = draw_example(rng, phase, split)
        if not (example.effort == "medium" and "hint:" in example.user):
            return example


class VariantTraining(Training):
    """Training that begins with the shipped weights and has the habit in its data."""

    def __init__(self, recipe: Recipe) -> None:
        """Read the shipped weights; the optimisers begin anew."""
        super().__init__(recipe)
        shipped = load_file(WEIGHTS / "model.safetensors")
        self.model.load_state_dict({name: value.float() for name, value in shipped.items()})

    def batches(self) -> Iterator[list[Batch]]:
        """The steps' batches from where the run stands."""
        recipe = self.recipe
        return stream(
            self.tokenizer,
            recipe.seed,
            0,
            recipe.batch_tokens,
            BATCHES_PER_STEP,
            self.cursor,
            draw_hint_said,
        )


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m workbench.tiny.variants", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/hint-said"), help="folder for checkpoint and log")
    parser.add_argument("--export", type=Path, help="write the model here when done")
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2))
    options = parser.parse_args(arguments)
    training = train(HINT_SAID, options.out, options.processes, kind=VariantTraining)
    if options.export:
        export(training.model, training.tokenizer, options.export)


if __name__ == "__main__":
    main()
