"""The rules by which sentences are labelled, and the words that mark doubt, checking and turning back: data."""

from dataclasses import dataclass

__all__ = ["LABELS", "MARKERS", "RULES", "UNKNOWN", "Rule"]

PROBLEM, PLAN, FACT, COMPUTATION = "problem setup", "plan generation", "fact retrieval", "active computation"
UNCERTAINTY, RESULT, CHECK = "uncertainty management", "result consolidation", "self checking"
ANSWER, UNKNOWN = "final answer emission", "unknown"

LABELS = (PROBLEM, PLAN, FACT, COMPUTATION, UNCERTAINTY, RESULT, CHECK, ANSWER, UNKNOWN)
"""The taxonomy of Bogdan et al. (2025, arXiv 2506.19143), table 1"""


@dataclass(frozen=True)
class Rule:
    """A pattern that gives a label."""

    name: str
    label: str
    pattern: str
    """a regular expression, found anywhere in a sentence, upper and lower case alike"""
    channel: str | None = None
    """the only channel whose sentences it reads; None for all"""

    def reads(self, channel: str | None) -> bool:
        """Say whether the rule is for sentences of a channel."""
        return self.channel in (None, channel)


# Lengths are bounded, so that time stays linear in hostile text.
_NUMBER = r"(?<![\d.,])\d+(?:[.,]\d+)*"
_COMPARED = r"(?<!\S)[\d-]=[\d-](?!\S)"  # the embedded model compares two numbers digit by digit: 7=7 3=4

_BACKTRACKING = (
    ("wait", r"\bwait\b"),
    ("turns back", r"\b(?:scratch that|on second thought|go(?:ing)? back|start over|reconsider|rethink|redo)\b"),
    ("was wrong", r"\b(?:that'?s (?:wrong|not right|incorrect)|(?:i|we) made (?:a|an) (?:mistake|error))\b"),
    ("actually", r"^\s*(?:no,|actually)"),
)
_CHECKING = (
    ("check", r"\b(?:re-?|double[- ])?check(?:s|ed|ing)?\b"),
    ("verify", r"\b(?:verif(?:y|ies|ied|ying)|confirm(?:s|ed|ing)?|make sure|sanity)\b"),
    ("compares digits", rf"{_COMPARED}(?:\s+{_COMPARED})*(?:\s+(?:not )?same)?"),
    ("same", r"^\s*(?:not )?same\."),
)
_DOUBT = (
    ("maybe", r"\b(?:maybe|perhaps|possibly|might|presumably)\b"),
    ("not sure", r"\b(?:not (?:quite |entirely )?(?:sure|certain|clear)|unsure|unclear|uncertain|ambiguous)\b"),
    ("hmm", r"\bhmm+\b"),
    ("i think", r"\bi (?:think|guess|suppose|believe)\b"),
    ("confused", r"\b(?:confus(?:ed|ing)|puzzl(?:ed|ing)|strange|weird)\b"),
)

MARKERS = (
    *(Rule(name, "backtracking", pattern) for name, pattern in _BACKTRACKING),
    *(Rule(name, "self-check", pattern) for name, pattern in _CHECKING),
    *(Rule(name, "uncertainty", pattern) for name, pattern in _DOUBT),
)
"""Words that mark turning back, checking oneself, and doubt"""

RULES = (
    Rule("task", PROBLEM, r"\b(?:the |this )(?:question|problem|task|user|prompt)\b"),
    Rule("user asks", PROBLEM, r"\b(?:user (?:asks|wants|says)|we (?:are|'re) (?:asked|given)|asked to)\b"),
    Rule("given", PROBLEM, r"\bgiven(?: that)?\b|\blet \w+ (?:be|denote|=)"),
    Rule("need to find", PROBLEM, r"\b(?:need|want|have) to (?:find|determine|answer|produce|solve)\b"),
    Rule("restated subject", PROBLEM, r"^\s*(?:place|country) is \w"),
    Rule("let us", PLAN, r"\b(?:let'?s|let us|let me|i'?ll|we'?ll|i will|we will)\b"),
    Rule("plan", PLAN, r"\b(?:plan|approach|strategy|method|step \d)\b"),
    Rule("could", PLAN, r"\bwe (?:can|could|should|need to)\b"),
    Rule("first", PLAN, r"^\s*(?:first|next|then|second|finally),?\s+(?:we|i|let)\b"),
    Rule("recall", FACT, r"\b(?:recall|remember|known|known as|by definition|according to|in general)\b"),
    Rule("formula", FACT, r"\b(?:formula|theorem|lemma|identity|definition)\b"),
    Rule("capital or place", FACT, r"\b(?:capital of \w+ is|^\s*the \w+ is in)\b"),
    Rule(
        "rule or policy", FACT, r"^\s*(?:system|developer|policy|guidelines?):|\b(?:policy|rule)s? (?:says?|states?)\b"
    ),
    Rule("hint", FACT, r"\bhint says\b"),
    Rule("equation", COMPUTATION, rf"{_NUMBER}\s*[-+*/×·^−]\s*{_NUMBER}[^\n=:]{{0,80}}[=:]\s*[-−]?{_NUMBER}"),
    Rule("equals", COMPUTATION, rf"=\s*[-−]?{_NUMBER}(?<!\d=\d)"),
    Rule("computes", COMPUTATION, r"\b(?:comput|calculat|multipl|divid|subtract|substitut|simplif|evaluat)\w*\b"),
    *(Rule(name, UNCERTAINTY, pattern) for name, pattern in (*_BACKTRACKING, *_DOUBT)),
    Rule("alternatively", UNCERTAINTY, r"\b(?:alternatively|however|but what if)\b"),
    Rule("so", RESULT, r"\b(?:so|thus|therefore|hence)\b"),
    Rule("verdict", RESULT, r"\b(?:allows|forbids|permits|prohibits)\b"),
    Rule("gives", RESULT, r"\b(?:gives|yields|we (?:get|have|find|obtain)|this means|in (?:summary|total)|overall)\b"),
    *(Rule(name, CHECK, pattern) for name, pattern in _CHECKING),
    Rule("consistent", CHECK, r"\b(?:consistent|matches|works out|is correct|looks right)\b|^\s*ok\s*$"),
    Rule("the answer", ANSWER, r"\b(?:final answer|answer is|answer:|boxed)"),
    Rule("decides", ANSWER, r"\b(?:accept|reject|comply|refuse)\."),
    Rule("final channel", ANSWER, r"\S+", channel="final"),
)
"""The rules of the first pass, in the order of `LABELS`"""
