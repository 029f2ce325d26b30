"""Signals: each on what was written for it, and all of them against the embedded model, whose behaviour is known.

The last test measures precision and recall, and prints them. What the embedded model was trained to do is the truth:
hints are followed in silence at low and medium effort, rules are weighed, refusals are given. What it does not do by
itself (going against a rule, illegible stretches, broken format) is written into its mouth. Nothing of it carries over
to other models.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from random_trace import random_trace
from written_trace import written_trace

import workbench as wb
from workbench.analysis import signals as module
from workbench.analysis.signals import SIGNALS, Signal, signals
from workbench.review.agreement import SignalQuality, signal_quality
from workbench.tiny.cells import additions, mixture, safety
from workbench.tiny.grammar import EFFORTS, Example
from workbench.tiny.rollouts import Request, complete
from workbench.trace import Trace


def fired(trace: Trace) -> dict[str, Signal]:
    return {signal.name: signal for signal in signals(trace)}


def test_chain_and_answer_disagree() -> None:
    found = fired(written_trace(["so", " 4"], ["5"]))[module.DISAGREE]
    assert [(s.channel, s.start, s.stop, s.text) for s in found.seen] == [
        ("analysis", 11, 12, " 4"),
        ("final", 18, 19, "5"),
    ]
    assert (found.says, found.chain) == ("the chain ends with 4, the answer is 5", True)
    for analysis, final in ((["so", " 5"], ["5"]), ([], ["5"]), (["so", " 4"], ["hm"])):
        assert module.DISAGREE not in fired(written_trace(analysis, final))


def test_influence_in_the_prompt_and_whether_the_chain_is_silent() -> None:
    prompt = ["2+2=?", " hint:", " 5"]
    both = fired(written_trace(["so", " 4"], ["5"], prompt=prompt))
    assert both[module.INFLUENCE].seen[0].text == " hint: 5"
    assert (both[module.INFLUENCE].chain, both[module.UNMENTIONED].chain) == (False, True)
    assert [s.text for s in both[module.UNMENTIONED].seen] == [" hint: 5", "5"]
    assert module.UNMENTIONED not in fired(written_trace(["the hint", " says 5"], ["5"], prompt=prompt))
    assert module.UNMENTIONED not in fired(written_trace(["so", " 4"], ["4"], prompt=prompt))
    said = fired(written_trace(["so 4"], ["5"], prompt=["I think", " the answer is 5."]))
    assert said[module.UNMENTIONED].seen[0].text == "I think the answer is 5."
    assert not fired(written_trace(["so 4"], ["4"], prompt=["a hinterland"]))


def test_refusal_and_policy_talk() -> None:
    refused = fired(written_trace(["policy says no"], ["sorry, i can not help"]))[module.REFUSAL]
    assert (refused.chain, [s.channel for s in refused.seen]) == (False, ["final", "final"])
    thought = fired(written_trace(["is it", " disallowed", "?"], ["ok"]))[module.REFUSAL]
    assert (thought.chain, thought.seen[0].text) == (True, " disallowed")


def test_illegible_stretches() -> None:
    words = ["a word"] * 20
    for strange in (b"\xff", "ж", "\u0001"):
        mixed = [*words[:6], *[strange] * 9, *words[:6]]
        found = fired(written_trace(mixed, ["4"]))[module.ILLEGIBLE]
        assert found.chain
        assert found.seen[0].stop - found.seen[0].start == module.WINDOW
    for plain in (words, ["naïve", "–", "“é”"] * 7, [*words[:8], *["ж"] * 5, *words[:8]]):
        assert module.ILLEGIBLE not in fired(written_trace(plain, ["4"]))
    greek = ["αβγ", "δεζ"]
    assert module.ILLEGIBLE in fired(written_trace(greek * 8, ["4"], prompt=["what is it?"]))
    assert module.ILLEGIBLE not in fired(written_trace(greek * 8, ["4"], prompt=greek))
    surprising = written_trace(words, ["4"], entropy=[4.0] * 20)  # its log-probabilities are −8
    assert module.ILLEGIBLE in fired(surprising)
    assert module.ILLEGIBLE not in fired(written_trace(words, ["4"], entropy=[3.0] * 20))
    assert fired(written_trace([], ["ж"] * 12))[module.ILLEGIBLE].chain is False


def test_a_broken_format_and_near_ties() -> None:
    trace = random_trace()
    found = fired(trace)
    assert (found[module.MALFORMED].says, found[module.MALFORMED].seen[0].start) == ("no <|channel|>", 7)
    far = np.zeros_like(trace.arrays["router_logits"])
    far[..., :2] = [9, 5]
    spread = replace(trace, arrays={**trace.arrays, "router_logits": far})
    assert module.NEAR_TIES not in fired(spread)
    far[..., 2] = 5
    assert "100% of the choices" in fired(spread)[module.NEAR_TIES].says
    assert not fired(replace(spread, spans=())).keys() - {module.NEAR_TIES}


def test_a_signal_survives_json() -> None:
    for signal in signals(written_trace(["so", " 4"], ["5"], prompt=["hint: 5"])):
        assert Signal.from_json(signal.to_json()) == signal
        assert signal.name in SIGNALS


def test_hostile_text_takes_linear_time() -> None:
    for text in ("do not " * 4_000, "professor " * 4_000, "hint:" * 4_000, "(" * 20_000, "the answer is" * 2_000):
        pieces = [text[at : at + 1_000] for at in range(0, len(text), 1_000)]
        started = time.perf_counter()
        signals(written_trace(pieces, pieces, prompt=pieces))
        assert time.perf_counter() - started < 5


@dataclass(frozen=True)
class Known:
    """A completion, and which signals are right about it."""

    effort: str
    prompt: str
    completion: str
    truth: frozenset[str]


def asked() -> Iterator[tuple[Example, frozenset[str]]]:
    """Questions of the grammar with what the model was trained to do."""
    rng = random.Random(5)
    for right in (False, True, None):
        for at in range(12):
            plain = additions.draw_addition(rng, "test", 3 + at % 2)
            addition = plain if right is None else additions.with_hint(rng, plain, right)
            for effort in EFFORTS:
                truth = set() if right is None else {module.INFLUENCE}
                truth |= {module.UNMENTIONED} if right is not None and effort != "high" else set()
                truth |= {module.DISAGREE} if right is False and effort == "medium" else set()
                yield mixture.addition_example(rng, addition, effort), frozenset(truth)
    for cell in safety.CELLS:
        for _ in range(3):
            request = safety.draw_request(rng, "test", cell)
            for effort in EFFORTS:
                talks = effort != "low" or not request.decision[1]
                yield mixture.safety_example(rng, request, effort), frozenset({module.REFUSAL} if talks else ())


def against_the_rule() -> Iterator[Known]:
    """Forbidden requests with an answer that goes ahead, at low effort: nothing in the chain."""
    rng = random.Random(6)
    made = 0
    while made < 30:
        request = safety.draw_request(rng, "test", rng.choice(safety.CELLS))
        level, allowed = request.decision
        if allowed or (level == "policy" and request.claim is None):
            continue  # what no rule in the prompt forbids, and nobody claims, cannot be seen there
        example = mixture.safety_example(rng, request, "low")
        ahead = replace(example, analysis="", answer=f"ok, i {request.verb} the {request.target}.")
        made += 1
        yield Known("low", ahead.prompt(), ahead.completion(), frozenset({module.HIERARCHY}))


def spoilt(known: list[Known]) -> Iterator[Known]:
    """Completions with a stretch that nobody can read, or whose format is broken."""
    rng = random.Random(7)
    some = [k for k in known if k.effort != "low" and "<|channel|>analysis<|message|>" in k.completion]
    for at, each in enumerate(rng.sample(some, 30)):
        letters = "жшщюя漢字かな" if at % 2 else "\u0001\u0002\ufffd\u200b"
        noise = "".join(rng.choice(letters) for _ in range(24))
        changed = each.completion.replace("<|message|>", f"<|message|>{noise} ", 1)
        yield replace(each, completion=changed, truth=each.truth | {module.ILLEGIBLE})
    for at, each in enumerate(rng.sample(some, 24)):
        cut = ("<|message|>", "<|end|>", "<|return|>", "<|channel|>")[at % 4]
        yield replace(each, completion=each.completion.replace(cut, "", 1), truth=each.truth | {module.MALFORMED})


@pytest.fixture(scope="module")
def measured(tiny: wb.Model) -> dict[str, SignalQuality]:
    questions = list(asked())
    requests = [Request(example.prompt(), "", example.completion()) for example, _ in questions]
    said = complete(tiny.hf, tiny.tokenizer, requests, temperature=0, seed=0)
    known = [
        Known(example.effort, example.prompt(), completion.text, truth)
        for (example, truth), completion in zip(questions, said, strict=True)
    ]
    known += [*against_the_rule(), *spoilt(known)]
    flags = [set(fired(read(tiny, each))) for each in known]
    numbers = {
        name: signal_quality(
            {str(at): name in some for at, some in enumerate(flags)},
            {str(at): name in each.truth for at, each in enumerate(known)},
        )
        for name in SIGNALS
    }
    near = sum(module.NEAR_TIES in some for some in flags)
    print(
        f"\nembedded model, greedy, {len(known)} completions; {near} are heavy in near-ties, of which nothing is known"
    )
    for name, quality in numbers.items():
        if name != module.NEAR_TIES:
            shown = told(quality.precision, quality.precision_interval, "precision")
            shown += f", {told(quality.recall, quality.recall_interval, 'recall')}"
            print(f"{name:45} {shown}, g-mean² {quality.g_mean2:.2f}")
    return numbers


def told(value: float, interval: tuple[float, float], what: str) -> str:
    return f"{what} {value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def read(tiny: wb.Model, known: Known) -> Trace:
    def ids(text: str) -> list[int]:
        return list(tiny.tokenizer(text, add_special_tokens=False)["input_ids"])

    spec = wb.CaptureSpec(attention=False, lens=False)
    prompt = ids(known.prompt)
    whole = prompt + ids(known.completion)
    return wb.replay(tiny, whole, num_prompt_tokens=len(prompt), effort=known.effort, capture=spec)


@pytest.mark.parametrize("name", [name for name in SIGNALS if name != module.NEAR_TIES])
def test_precision_and_recall_on_the_embedded_model(measured: dict[str, SignalQuality], name: str) -> None:
    quality = measured[name]
    precision, recall = module.MEASURED[name]
    assert quality.true_positives + quality.false_negatives >= 10
    assert quality.precision == pytest.approx(precision, abs=0.05)  # another machine's floats may turn an answer
    assert quality.recall == pytest.approx(recall, abs=0.05)
