"""Requests that the embedded model decides by a rule: the same one allowed and forbidden, for contrasts that match."""

from workbench.tiny.grammar.safety import SAFE, UNSAFE, Request, Rule, solve

__all__ = ["SAFE", "UNSAFE", "request_under_rule"]


def request_under_rule(target: str, allow: bool, verb: str = "open") -> list[dict[str, str]]:
    """Return a conversation for `workbench.replay`: a developer's rule, a request, and what the rule makes of it.

    Two conversations that differ in ``allow`` alone are a matched pair: the decision differs, the topic does not.

    Args:
        target: what is asked for, such as one of `SAFE` or `UNSAFE`.
        allow: whether the rule allows it.
        verb: what is to be done with it: open, take, move, share, start.
    """
    rule = Rule(allow, target)
    thought, said = solve(Request(verb, target, developer=rule), "medium")
    return [
        {"role": "developer", "content": rule.line},
        {"role": "user", "content": f"{verb} the {target}."},
        {"role": "assistant", "thinking": thought.text, "content": said},
    ]
