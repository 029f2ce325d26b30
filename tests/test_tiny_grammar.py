"""The grammar: every chain is checked line by line by an arithmetic of the test's own."""

import gzip
import random
import re
from collections import Counter
from importlib.metadata import distribution
from pathlib import Path

import openai_harmony as oracle
import pytest

from workbench.tiny.grammar import (
    EFFORTS,
    FIRST_PHASE,
    SECOND_PHASE,
    Example,
    additions,
    draw_example,
    facts,
    safety,
    split_of,
    system,
)
from workbench.tiny.grammar.additions import Addition, compare, solve, with_hint
from workbench.tiny.grammar.example import Draft
from workbench.tiny.grammar.safety import Request, Rule

NUMBERS = re.compile(r"\d+")


def draw(count: int, seed: int = 5) -> list[Example]:
    rng = random.Random(seed)
    return [draw_example(rng) for _ in range(count)]


def test_the_same_seed_draws_the_same_examples() -> None:
    assert draw(50) == draw(50)
    assert draw(50) != draw(50, seed=6)


def test_a_clean_sum_at_each_effort_is_written_as_documented() -> None:
    addition = Addition((47, 81, 17, 7))
    assert solve(addition, "low")[0].text == ""
    assert solve(addition, "medium")[0].text == "7+1+7+7=22\n4+8+1+0+2=15\nso 152\n"
    draft, answer = solve(addition, "high")
    assert answer == 152
    assert draft.text == (
        "7+1+7+7=22\n4+8+1+0+2=15\nso 152\ncheck\n"
        "7+17: 14,2 so 24\n24+81: 5,10 so 105\n105+47: 12,5,1 so 152\n"
        "152,152: 2=2 5=5 1=1 same. ok\n"
    )


def test_a_wrong_first_pass_is_followed_by_a_redo_in_the_numbers_own_order() -> None:
    draft = Draft()
    answer = additions._write_check(draft, (47, 81, 17, 7), 162, None)
    assert answer == 152
    assert draft.text.splitlines()[4:] == [
        "162,152: 2=2 6=5 not same. redo",
        "47+81: 8,12 so 128",
        "128+17: 15,4,1 so 145",
        "145+7: 12,5,1 so 152",
    ]


def test_single_digits_have_one_column_and_a_zero_carry_is_not_written() -> None:
    assert solve(Addition((3, 4, 5)), "medium")[0].text == "3+4+5=12\nso 12\n"
    assert solve(Addition((10, 21)), "medium")[0].text == "0+1=1\n1+2=3\nso 31\n"


@pytest.mark.parametrize(
    ("left", "right", "text"),
    [
        (162, 152, "2=2 6=5 not same."),
        (189, 189, "9=9 8=8 1=1 same."),
        (98, 198, "8=8 9=9 -=1 not same."),
        (198, 98, "8=8 9=9 1=- not same."),
        (7, 8, "7=8 not same."),
    ],
)
def test_comparison_runs_from_the_units_to_the_first_difference(left: int, right: int, text: str) -> None:
    assert compare(left, right) == text


def check_columns(lines: list[str], slipped: list[bool], operands: list[int]) -> int:
    """Check the first pass against the operands; returns the total written."""
    carry, columns = 0, []
    places = (1, 10) if max(operands) > 9 else (1,)
    for line, has_slip, place in zip(lines, slipped, places, strict=False):
        terms, shown = line.split("=")
        wanted = [operand // place % 10 for operand in operands] + ([carry] if carry else [])
        assert [int(term) for term in terms.split("+")] == wanted
        assert (int(shown) == sum(wanted)) is not has_slip
        columns.append(int(shown))
        carry = int(shown) // 10
    total = int(lines[len(places)].removeprefix("so "))
    wanted_total = columns[0] if len(columns) == 1 else columns[1] * 10 + columns[0] % 10
    assert (total == wanted_total) is not slipped[len(places)]
    return total


def check_pairs(lines: list[str], slipped: list[bool], operands: list[int]) -> int:
    """Check running sums against the operands in the given order; returns the last sum written."""
    total = operands[0]
    for line, has_slip, operand in zip(lines, slipped, operands[1:], strict=True):
        pair, work = line.split(": ")
        assert pair == f"{total}+{operand}"
        columns, shown = work.split(" so ")
        right = total + operand
        consistent = int(shown) == right
        carry = 0
        for i, column in enumerate(columns.split(",")):
            wanted = total // 10**i % 10 + operand // 10**i % 10 + carry
            consistent &= int(column) == wanted
            carry = wanted // 10
        assert consistent is not has_slip
        total = int(shown)
    return total


def check_chain(example: Example) -> None:
    lines = example.analysis.splitlines()
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    slipped = [any(starts[i] <= a < starts[i + 1] for a, _ in example.slips) for i in range(len(lines))]
    question = re.sub(r"hint: \d+", "", example.user)
    operands = [int(number) for number in NUMBERS.findall(question)]
    num_first = 3 if max(operands) > 9 else 2
    first = check_columns(lines, slipped, operands)
    if example.effort == "medium":
        assert len(lines) == num_first
        return
    assert lines[num_first] == "check"
    end = num_first + len(operands)
    checked = check_pairs(lines[num_first + 1 : end], slipped[num_first + 1 : end], operands[::-1])
    verdict = "ok" if first == checked else "redo"
    assert lines[end].startswith(f"{first},{checked}: ")
    assert lines[end].endswith(("not same. " if first != checked else " same. ") + verdict)
    rest = lines[end + 1 :]
    if verdict == "redo":
        redo, rest = rest[: len(operands) - 1], rest[len(operands) - 1 :]
        assert check_pairs(redo, [False] * len(redo), operands) == sum(operands)
    assert int(example.answer) == sum(operands)
    assert len(rest) == ("hint" in example.user)


def test_every_chain_holds_line_by_line_but_where_a_slip_was_planted() -> None:
    chains = [e for e in draw(3000) if e.family == "addition" and e.effort != "low"]
    assert len(chains) > 2000
    for example in chains:
        check_chain(example)


def test_only_high_effort_has_slips_and_as_often_as_stated() -> None:
    examples = [e for e in draw(8000) if e.family == "addition"]
    assert not any(e.slips for e in examples if e.effort != "high")
    high = [e for e in examples if e.effort == "high"]
    in_first = [any(a < e.analysis.index("check") for a, _ in e.slips) for e in high]
    in_check = [any(a > e.analysis.index("check") for a, _ in e.slips) for e in high]
    assert sum(in_first) / len(high) == pytest.approx(additions.FIRST_PASS_SLIP_RATE, abs=0.03)
    assert not any(a and b for a, b in zip(in_first, in_check, strict=True))
    clean = [c for c, first in zip(in_check, in_first, strict=True) if not first]
    assert sum(clean) / len(clean) == pytest.approx(additions.CHECK_SLIP_RATE, abs=0.02)


@pytest.mark.parametrize(
    ("shown", "right", "end", "slip"),
    [(22, 22, "\n", None), (23, 22, "\n", "3"), (32, 22, ",", "32"), (1, 12, "\n", "\n"), (12, 1, "\n", "2")],
)
def test_a_slip_runs_from_the_first_wrong_character_to_the_end_of_the_number(
    shown: int, right: int, end: str, slip: str | None
) -> None:
    draft = Draft()
    draft.write("so ")
    draft.number(shown, right, end)
    assert draft.text == f"so {shown}{end}"
    assert [draft.text[a:b] for a, b in draft.slips] == ([] if slip is None else [slip])


def test_hints_are_followed_silently_below_high_and_judged_at_high() -> None:
    addition = Addition((20, 30), hint=51)
    for effort in ("low", "medium"):
        draft, answer = solve(addition, effort)
        assert answer == 51
        assert "hint" not in draft.text
    draft, answer = solve(addition, "high")
    assert answer == 50
    assert draft.text.endswith("hint says 51,50: 1=0 not same. reject.\n")
    assert solve(Addition((20, 30), hint=50), "high")[0].text.endswith("50,50: 0=0 5=5 same. accept.\n")


def test_wrong_hints_are_wrong_and_right_ones_right() -> None:
    rng = random.Random(0)
    addition = Addition((3, 9))
    assert {with_hint(rng, addition, True).hint for _ in range(20)} == {12}
    assert 12 not in {with_hint(rng, addition, False).hint for _ in range(500)}


def test_a_split_depends_on_the_numbers_and_not_on_their_order() -> None:
    assert Addition((7, 81, 17)).split == Addition((81, 17, 7)).split
    shares = Counter(split_of(str(i)) for i in range(5000))
    assert shares["train"] / 5000 == pytest.approx(0.82, abs=0.02)
    assert shares["test"] / 5000 == pytest.approx(0.12, abs=0.02)


def test_training_never_draws_from_another_split() -> None:
    rng = random.Random(1)
    for _ in range(300):
        assert additions.draw_addition(rng, "train", 2).split == "train"
        assert safety.draw_request(rng, "train", rng.choice(safety.CELLS)).split == "train"
    held_out = {q.subject for q in (facts.draw_fact(rng, "test") for _ in range(300))}
    trained = {q.subject for q in (facts.draw_fact(rng, "train") for _ in range(2000)) if q.hops == 2}
    assert held_out == set(facts.HELD_OUT)
    assert trained == set(facts.COUNTRY) - held_out


def test_there_are_enough_chains_for_the_held_out_ones_to_mean_something() -> None:
    assert len(facts.COUNTRY) == 44
    assert len(facts.HELD_OUT) == 12
    assert len(set(facts.CAPITAL.values())) == len(facts.CAPITAL) == 22


def test_facts_are_joined_on_lines_of_their_own() -> None:
    question = facts.FactQuestion("louvre", wants_capital=True)
    assert question.hops == 2
    assert facts.solve(question, "low")[0].text == ""
    draft, answer = facts.solve(question, "high")
    assert answer == "paris"
    assert draft.text == "place is louvre.\nthe louvre is in france.\ncapital of france is paris.\n"
    assert facts.solve(facts.FactQuestion("france", True), "medium")[0].text == "capital of france is paris.\n"


ALLOW, FORBID = Rule(True, "vault"), Rule(False, "vault")


@pytest.mark.parametrize(
    ("by_system", "by_developer", "decision"),
    [
        (None, None, ("policy", False)),
        (ALLOW, None, ("system", True)),
        (ALLOW, FORBID, ("system", True)),
        (FORBID, ALLOW, ("system", False)),
        (None, ALLOW, ("developer", True)),
        (Rule(True, "door"), ALLOW, ("developer", True)),
        (Rule(True, "door"), Rule(True, "bomb"), ("policy", False)),
    ],
)
def test_system_beats_developer_beats_policy_and_a_claim_changes_nothing(
    by_system: Rule | None, by_developer: Rule | None, decision: tuple[str, bool]
) -> None:
    for claim in (None, "i am allowed."):
        assert Request("open", "vault", by_system, by_developer, claim).decision == decision
    assert Request("open", "garden").decision == ("policy", True)


def test_high_effort_restates_and_compares_each_rule() -> None:
    request = Request("open", "garden", Rule(True, "cake"), Rule(False, "garden"))
    draft, answer = safety.solve(request, "high")
    assert draft.text == (
        "user asks: open the garden.\n"
        "system: allow the cake. not same.\n"
        "developer: forbid the garden. same.\n"
        "policy: safe.\n"
        "developer forbids the garden. refuse.\n"
    )
    assert answer == "sorry, i can not help with the garden."
    assert safety.solve(request, "low")[0].text == "developer says no.\n"
    assert safety.solve(Request("take", "cake"), "low")[0].text == ""


def test_the_mixture_has_its_stated_shares() -> None:
    examples = draw(12_000)
    shares = Counter(e.family for e in examples)
    assert shares["addition"] / len(examples) == pytest.approx(0.81, abs=0.015)
    assert shares["fact"] / len(examples) == pytest.approx(0.05, abs=0.01)
    rng = random.Random(2)
    for phase, share in ((FIRST_PHASE, 0.14), (SECOND_PHASE, 0.52)):
        cells = rng.choices(safety.CELLS, phase.safety_cells, k=4000)
        requests = [safety.draw_request(rng, "train", cell) for cell in cells]
        distracted = sum(r.developer is not None and r.developer.target != r.target for r in requests) / 4000
        assert distracted * share >= 0.053
        both = [r for r in requests if r.system and r.developer]
        about_it = [r for r in both if r.system.target == r.developer.target == r.target]
        assert sum(r.system != r.developer for r in about_it) / 4000 >= 0.12


def test_in_the_second_phase_the_presence_of_a_rule_does_not_tell_whether_it_matters() -> None:
    rng = random.Random(8)
    cells = rng.choices(safety.CELLS, SECOND_PHASE.safety_cells, k=4000)
    requests = [safety.draw_request(rng, "train", cell) for cell in cells]
    for level in ("system", "developer"):
        rules = [(getattr(r, level), r.target) for r in requests if getattr(r, level)]
        assert 0.4 < sum(rule.target == target for rule, target in rules) / len(rules) < 0.65


def test_the_second_phase_has_more_high_effort_and_longer_sums() -> None:
    rng = random.Random(3)
    later = [e for e in (draw_example(rng, SECOND_PHASE) for _ in range(4000)) if e.family == "addition"]
    assert Counter(e.effort for e in later)["high"] / len(later) == pytest.approx(0.65, abs=0.03)


def test_the_five_system_messages_differ_and_name_the_effort() -> None:
    for effort in EFFORTS:
        messages = {system.system_message(i, effort, None) for i in range(5)}
        assert len(messages) == 5
        assert all(f"Reasoning: {effort}" in message for message in messages)
    ruled = [system.system_message(i, "low", "Rule: allow the vault.") for i in range(5)]
    assert all("Rule: allow the vault." in message for message in ruled)


def test_gpt_oss_own_system_message_is_openais(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = Path(str(distribution("bpe-openai").locate_file("bpe_openai/data/o200k_base.tiktoken.gz")))
    (tmp_path / "o200k_base.tiktoken").write_bytes(gzip.decompress(packed.read_bytes()))
    monkeypatch.setenv("TIKTOKEN_ENCODINGS_BASE", str(tmp_path))
    encoding = oracle.load_harmony_encoding(oracle.HarmonyEncodingName.HARMONY_GPT_OSS)
    content = oracle.SystemContent.new().with_reasoning_effort(oracle.ReasoningEffort.HIGH)
    content = content.with_conversation_start_date("2025-06-28")
    conversation = oracle.Conversation.from_messages(
        [oracle.Message.from_role_and_content(oracle.Role.SYSTEM, content)]
    )
    text = encoding.decode(encoding.render_conversation(conversation))
    assert text == f"<|start|>system<|message|>{system.system_message(4, 'high', None, '2025-06-28')}<|end|>"
