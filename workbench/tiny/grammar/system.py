"""The five system messages the model is trained under, gpt-oss's own among them."""

import random

from .example import Effort

DEFAULT_IDENTITY = "You are a tiny model."
_CHANNELS = "# Valid channels: analysis, commentary, final. Channel must be included for every message."
_WEIGHTS = (40, 20, 14, 13, 13)


def system_message(variant: int, effort: Effort, rule: str | None, date: str = "2025-06-28") -> str:
    """Render one of the variants 0–4 with the effort and, where there is one, the system's rule.

    0 is what the chat template writes, 1 is a bare rule, 4 is gpt-oss's own message.
    """
    reasoning = f"Reasoning: {effort}"
    if variant == 4:
        own = (
            "You are ChatGPT, a large language model trained by OpenAI.\n"
            f"Knowledge cutoff: 2024-06\nCurrent date: {date}\n\n{reasoning}\n\n{_CHANNELS}"
        )
        return f"{own}\n\n{rule}" if rule else own
    identity = {
        0: DEFAULT_IDENTITY,
        1: "",
        2: "You are a tiny model.\n",
        3: "You are ChatGPT, a large language model trained by OpenAI.",
    }[variant]
    lines = [line for line in (identity, rule or "", reasoning) if line]
    return "\n".join(lines) if variant < 3 else "\n".join([*lines, "", _CHANNELS])


def draw_system_message(rng: random.Random, effort: Effort, rule: str | None = None) -> str:
    """Draw a variant; gpt-oss's own message gets a random date."""
    variant = rng.choices(range(5), _WEIGHTS)[0]
    date = f"20{rng.randint(24, 29)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    return system_message(variant, effort, rule, date)
