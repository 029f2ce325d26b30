"""Where a chain turns back, and to which sentence, by words."""

import pytest
from written_chain import written_chain

import workbench as wb
from workbench.analysis.reasoning import backtracking
from workbench.trace import Span


def of(*sentences: str) -> wb.Trace:
    return written_chain([_tokens(s) for s in sentences], ["5"])


def _tokens(sentence: str) -> list[str]:
    return [word if at == 0 else f" {word}" for at, word in enumerate(sentence.split())]


def number_of(trace: wb.Trace, span: Span | None) -> int | None:
    chain = [s for s in trace.sentences if s.channel == "analysis"]
    return None if span is None else chain.index(span)


def test_it_goes_back_to_the_sentence_it_repeats_most_by_hand() -> None:
    trace = of("Add 47 and 85 .", "7 + 5 = 11 .", "So 131 .", "Wait , 7 + 5 = 12 .", "So 132 .")
    (found,) = backtracking(trace)
    assert (found.marker.rule, found.marker.text) == ("wait", "Wait")
    assert number_of(trace, found.sentence) == 3
    assert number_of(trace, found.to) == 1
    assert found.similarity == pytest.approx(2 / 4)  # 7, 5 of 7, 5, 11, 12: the marker's word is left out


def test_the_sentence_after_the_marker_counts_too_and_of_equal_ones_the_later() -> None:
    trace = of("7 + 5 = 12 .", "7 + 5 = 12 .", "Hmm .", "Redo .", "7 + 5 = 12 .", "Done .")
    (found,) = backtracking(trace)
    assert number_of(trace, found.sentence) == 3
    assert number_of(trace, found.to) == 1
    assert found.similarity == 1


def test_too_little_in_common_leads_nowhere_and_says_how_much_it_was() -> None:
    trace = of("a b c d .", "Wait , a x y z .")
    (found,) = backtracking(trace)
    assert found.to is None
    assert found.similarity == pytest.approx(1 / 7)
    assert backtracking(trace, least=0.14)[0].to is not None
    with pytest.raises(wb.TraceError, match="expected a similarity above 0 and at most 1, got 0"):
        backtracking(trace, least=0)


def test_a_first_sentence_has_nothing_to_go_back_to() -> None:
    (found,) = backtracking(of("Wait , wait .", "Wait , wait ."))[:1]
    assert (found.to, found.similarity) == (None, 0)


def test_a_chain_that_never_turns_back_has_none() -> None:
    assert backtracking(of("7 + 5 = 12 .", "So 12 .")) == ()


def test_only_the_channel_asked_for_is_read() -> None:
    trace = of("7 + 5 = 12 .", "wait , 7 + 5 = 11 .")
    assert backtracking(trace, channel="final") == ()
    assert len(backtracking(trace, channel=None)) == 1
