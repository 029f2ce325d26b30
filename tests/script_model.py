"""A small GptOssForCausalLM of the official vocabulary, trained to say a few rollouts and nothing else.

OpenAI's server (`gpt_oss.responses_api`) speaks the official vocabulary only, of which no model is small. What a model
has to say here is recorded from that server itself: its own code renders the prompts and runs the tools, while the
tokens of a script are played to it. Run as a program, it writes a checkpoint to the folder it is given.
"""

import contextlib
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from official_harmony import official_encoding, write_vocabulary

VOCABULARY = 201_088
ADD = {
    "type": "function",
    "name": "add",
    "description": "Adds two numbers.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
}
CALL = {"type": "function_call", "name": "add", "arguments": '{"a": 47, "b": 85}', "call_id": "call_1"}
ANSWERED = [
    {"role": "user", "content": "Add 47 and 85 with the tool."},
    CALL,
    {"type": "function_call_output", "call_id": "call_1", "output": "132"},
]


class Conversation(NamedTuple):
    """What is asked, and what the model then says, one part up to each tool that the server runs."""

    asked: Any
    tools: list[dict[str, Any]]
    says: list[str]


CONVERSATIONS = {
    "plain": Conversation(
        "What is 47 + 85?",
        [],
        [
            "<|channel|>analysis<|message|>7+5=12, carry 1. 4+8+1=13.<|end|>"
            "<|start|>assistant<|channel|>final<|message|>132<|return|>"
        ],
    ),
    "function": Conversation(
        "Add 47 and 85 with the tool.",
        [ADD],
        [
            "<|channel|>analysis<|message|>I should call it.<|end|>"
            "<|start|>assistant<|channel|>commentary<|message|>I will add them.<|end|>"
            "<|start|>assistant<|channel|>commentary to=functions.add <|constrain|>json<|message|>"
            '{"a": 47, "b": 85}<|call|>'
        ],
    ),
    "answered": Conversation(ANSWERED, [ADD], ["<|channel|>final<|message|>The tool says 132.<|return|>"]),
    "python": Conversation(
        "Compute 47 + 85 in python.",
        [{"type": "code_interpreter"}],
        [
            "<|channel|>analysis<|message|>Run it.<|end|>"
            "<|start|>assistant<|channel|>analysis to=python code<|message|>print(47 + 85)<|call|>",
            "<|channel|>final<|message|>Python says 132.<|return|>",
        ],
    ),
    "browser": Conversation(
        "Look up 47 + 85.",
        [{"type": "web_search"}],
        [
            "<|channel|>analysis<|message|>Search.<|end|>"
            '<|start|>assistant<|channel|>analysis to=browser.search code<|message|>{"query": "47 + 85"}<|call|>',
            "<|channel|>final<|message|>The search failed.<|return|>",
        ],
    ),
}


class Rollout(NamedTuple):
    """All tokens of a rollout, and the places of those that the model said."""

    tokens: list[int]
    said: list[int]


def record(conversation: Conversation, effort: str) -> Rollout:
    """Return what OpenAI's server makes of a script: its prompt, the outputs of its tools, and the script between."""
    from fastapi.testclient import TestClient
    from gpt_oss.responses_api.api_server import create_api_server

    encoding = official_encoding()
    script = iter([token for part in conversation.says for token in encoding.encode(part, allowed_special="all")])
    rollout = Rollout([], [])

    def say(tokens: list[int], **_: Any) -> int:
        rollout.said.append(len(tokens))
        rollout.tokens[:] = [*tokens, next(script)]
        return rollout.tokens[-1]

    request = {"input": conversation.asked, "tools": conversation.tools, "reasoning": {"effort": effort}}
    with contextlib.redirect_stdout(io.StringIO()):
        reply = TestClient(create_api_server(say, encoding)).post("/v1/responses", json=request)
    assert reply.status_code == 200, reply.text
    return rollout


def speaking(rollouts: Sequence[Rollout], *, steps: int = 600, margin: float = 2.0) -> Any:
    """Train a model until greedy decoding in bfloat16 says every rollout; the loss is over the whole vocabulary.

    Only tokens that occur get rows of the embedding and unembedding while it trains; all others keep rows of zeros,
    whose logit is exactly 0, and count as such in the loss.
    """
    from transformers import GptOssForCausalLM

    torch.manual_seed(5)
    ids = torch.tensor(sorted({i for rollout in rollouts for i in rollout.tokens}))
    model = GptOssForCausalLM(_config(len(ids))).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    batch, wanted = _batch(rollouts, ids)
    rest = torch.tensor([math.log(VOCABULARY - len(ids))])
    for step in range(steps):
        logits = model(batch).logits[:, :-1][wanted >= 0]
        if step % 20 == 0 and _lead(logits.detach(), wanted[wanted >= 0]) > 2 * margin:
            break
        loss = F.cross_entropy(torch.cat([logits, rest.expand(len(logits), 1)], 1), wanted[wanted >= 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    large = _with_all_rows(model, ids)
    for rollout in rollouts:
        _check(large, rollout, margin)
    return large


def _config(size: int) -> Any:
    from transformers import GptOssConfig

    return GptOssConfig(
        vocab_size=size,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        initializer_range=0.08,
        pad_token_id=None,
        eos_token_id=None,
    )


def _batch(rollouts: Sequence[Rollout], ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of all tokens, and of those that are to be said next; -1 where nothing is."""
    longest = max(len(rollout.tokens) for rollout in rollouts)
    batch = torch.zeros(len(rollouts), longest, dtype=torch.int64)
    wanted = torch.full((len(rollouts), longest - 1), -1)
    for row, (tokens, said) in enumerate(rollouts):
        batch[row, : len(tokens)] = torch.searchsorted(ids, torch.tensor(tokens))
        places = torch.tensor(said)
        wanted[row, places - 1] = batch[row, places]
    return batch, wanted


def _lead(logits: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return by how much the wanted tokens lead at least; a token without a row has the logit 0."""
    own = logits.gather(1, wanted[:, None])[:, 0]
    others = logits.scatter(1, wanted[:, None], -math.inf).amax(1).clamp(min=0)
    return float((own - others).min())


def _with_all_rows(small: Any, ids: torch.Tensor) -> Any:
    state = small.state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        rows = torch.zeros(VOCABULARY, state[name].shape[1])
        rows[ids] = state[name]
        state[name] = rows
    large = type(small)(_config(VOCABULARY))
    large.load_state_dict(state)
    return large.to(torch.bfloat16).eval()


@torch.no_grad()
def _check(model: Any, rollout: Rollout, margin: float) -> None:
    tokens, places = torch.tensor(rollout.tokens), torch.tensor(rollout.said)
    found = _lead(model(tokens[None]).logits[0, places - 1].float(), tokens[places])
    assert found > margin, f"expected a model that leads by more than {margin}, got {found:.2f}: train it longer"


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rollouts = {name: record(each, "low") for name, each in CONVERSATIONS.items()}
    speaking(list(rollouts.values())).save_pretrained(folder)
    write_vocabulary(folder)
    (folder / "rollouts.json").write_text(json.dumps({name: each._asdict() for name, each in rollouts.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
