"""Tokenizer and chat template: lossless, digits alone, harmony's specials whole, gpt-oss's history rules."""

import json
import random
from pathlib import Path

import pytest
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from workbench.tiny import WEIGHTS
from workbench.tiny.grammar import draw_example, render_prompt
from workbench.tiny.grammar.system import system_message
from workbench.tiny.tokenizer import SPECIAL_TOKENS, build_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def random_texts() -> list[str]:
    rng = random.Random(0)
    ranges = ((0, 0x7F), (0x80, 0x7FF), (0x4E00, 0x9FFF), (0x1F300, 0x1FAFF), (0x600, 0x6FF))
    return ["".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(40)) for _ in range(60)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "  two  spaces \n\n\t tab\r\n",
        "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
        "中文字符、日本語、한국어",
        "مرحبا \u202e right to left",
        "\x00\x01\x1b[31m\x7f\u200b\ufeff",
        "e\u0301 é ﬁ Å",
        "<script>alert('x')</script> <img src=x onerror=alert(1)>",
        "the theatre, openopen, 1234567890 47+85=?",
    ],
)
def test_any_text_comes_back_exactly(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_random_unicode_comes_back_exactly(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in random_texts():
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_digits_are_single_tokens_and_known_words_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer("so 1234 open the vault", add_special_tokens=False)["input_ids"]
    pieces = [tokenizer.decode([i]) for i in ids]
    assert pieces == ["so", " ", "1", "2", "3", "4", " open", " the", " vault"]


def test_specials_are_one_token_each_at_the_end_of_the_vocabulary(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS]
    assert ids == list(range(len(tokenizer) - len(SPECIAL_TOKENS), len(tokenizer)))
    assert tokenizer("<|start|>user<|message|>", add_special_tokens=False)["input_ids"][::2] == [
        tokenizer.convert_tokens_to_ids(token) for token in ("<|start|>", "<|message|>")
    ]


def test_the_grammar_never_falls_apart_into_letters(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(99)
    for _ in range(2000):
        example = draw_example(rng)
        pieces = tokenizer.tokenize(example.prompt() + example.completion())
        assert not [p for p in pieces if len(p) == 1 and p.isalpha() and p.isascii() and p != "i"]


def test_the_template_writes_the_prompt_the_grammar_trains_on(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "47 + 85 = ?"}]
    for effort in ("low", "medium", "high"):
        text = tokenizer.apply_chat_template(
            messages, reasoning_effort=effort, add_generation_prompt=True, tokenize=False
        )
        assert text == render_prompt(system_message(0, effort, None), None, "47 + 85 = ?")
    default = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert "Reasoning: medium" in default


def test_the_template_takes_system_and_developer_messages(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "system", "content": "Rule: allow the vault."},
        {"role": "developer", "content": "Rule: forbid the door."},
        {"role": "user", "content": "open the vault."},
    ]
    text = tokenizer.apply_chat_template(messages, reasoning_effort="low", add_generation_prompt=True, tokenize=False)
    wanted = system_message(1, "low", "Rule: allow the vault.")
    assert text == render_prompt(wanted, "Rule: forbid the door.", "open the vault.")


def test_analysis_is_dropped_once_a_turn_ended_in_a_final_message(tokenizer: PreTrainedTokenizerFast) -> None:
    turn = [
        {"role": "user", "content": "1+2=?"},
        {"role": "assistant", "thinking": "1+2=3\nso 3\n", "content": "3"},
    ]
    ended = tokenizer.apply_chat_template(turn, tokenize=False)
    assert ended.endswith(
        "<|start|>assistant<|channel|>analysis<|message|>1+2=3\nso 3\n<|end|>"
        "<|start|>assistant<|channel|>final<|message|>3<|return|>"
    )
    again = [*turn, {"role": "user", "content": "2+2=?"}]
    history = tokenizer.apply_chat_template(again, add_generation_prompt=True, tokenize=False)
    assert "analysis" not in history
    assert history.endswith(
        "<|start|>assistant<|channel|>final<|message|>3<|end|><|start|>user<|message|>2+2=?<|end|><|start|>assistant"
    )


@pytest.mark.parametrize("effort", ["extreme", "", "Low", 3])
def test_an_unknown_effort_is_refused_by_name(tokenizer: PreTrainedTokenizerFast, effort: object) -> None:
    with pytest.raises(TemplateError, match="reasoning_effort must be low, medium or high, but is"):
        tokenizer.apply_chat_template([{"role": "user", "content": "1+1=?"}], reasoning_effort=effort, tokenize=False)


def test_an_unknown_role_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TemplateError, match="system, developer, user or assistant, but is 'tool'"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_the_shipped_tokenizer_is_the_built_one(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / name).read_text()) == json.loads((WEIGHTS / name).read_text())
    assert (tmp_path / "chat_template.jinja").read_text() == (WEIGHTS / "chat_template.jinja").read_text()
    loaded = AutoTokenizer.from_pretrained(WEIGHTS)
    text = "47+85=? 中文"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
