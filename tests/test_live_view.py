"""The live view without a browser: what it sends, how it stops, and where it refuses. See tests/browser too."""

import pytest

from widgets.live_view import PAGE, SHOWN, LiveView


def test_traits_hold_the_last_tokens_in_order_whatever_the_length() -> None:
    view = LiveView("2 + 2 = ?")
    for number in range(SHOWN + 3 * PAGE + 5):
        view.append(f"t{number}", "analysis", False)
        assert len(view.recent) < 2 * PAGE
    view.finish("end of message")
    held = [*view.earlier, *view.recent]
    assert view.count == SHOWN + 3 * PAGE + 5
    assert view.first == 3 * PAGE
    assert [text for text, _, _ in held] == [f"t{number}" for number in range(view.first, view.count)]
    assert len(view.recent) == 5
    assert view.ended == "end of message"


def test_tokens_that_come_fast_are_sent_together_and_none_is_lost() -> None:
    sent: list[int] = []
    view = LiveView("q")
    view.observe(lambda change: sent.append(change.new), "count")
    for number in range(1000):
        view.append(str(number), None, number == 0)
    view.finish("cut")
    assert len(sent) < 1000
    assert sent == sorted(sent)
    assert sent[-1] == 1000
    assert view.earlier[0] == ("0", None, True)


def test_a_stop_message_stops_and_others_do_not() -> None:
    view = LiveView("q")
    view._handle_custom_msg({"type": "go"}, [])
    assert not view.stopped
    view._handle_custom_msg({"type": "stop"}, [])
    assert view.stopped


def test_outside_a_notebook_it_says_what_to_do() -> None:
    view = LiveView("q")
    assert not view.can_stop
    with pytest.raises(RuntimeError, match=r"expected a Jupyter kernel .* leave out show=True .* on_token"):
        view.display()
