"""Every notebook runs from top to bottom, stores no output, and its views answer."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

CHECKS = {
    "01_first_trace": """
assert (low.provenance["effort"], high.provenance["effort"]) == ("low", "high")
assert trace.token_text(token).isdigit() and trace.span_at(token).channel == "analysis"
assert explorer.token == token
explorer.token = token + 1
assert explorer.token == token + 1
assert abs(attended.sum() + attention.sink_mass[0, 0] - 1) < 1e-4
assert weights.shape == (1, 4, 2) and margins.shape == (1, 4)
assert low.analysis_text == "" and len(high.analysis_text) > 20
assert (again.token_ids.values == trace.token_ids.values).all()
""",
    "02_routing": """
assert (tokens.num_traces, load.shape) == (10, (4, 8))
assert sum(1 for kind in kind_of.values() if kind == 0) == 10 and set(kind_of.values()) == {0, 1, 2, 3, 4}
assert share.shape == (5, 4) and share.values.max() > bound > 1 / 8
assert (card.layer, card.expert) == (int(strongest[1]), int(expert[tuple(strongest)])) and len(card._cards) == 32
assert card._cards[f"{card.layer}/{card.expert}"]["lifts"]["numAbove"] > 0
assert (told.value.values > told.null.values).all()
assert lost and len(topics) == mixed.num_traces == 16
assert test.num_traces_a == digits.num_traces_b == by_effort.num_traces_a == 10
assert counts["final"].sum() == 2 * 4 * lengths["final"].sum()
assert overlap.values.min() > 0.9 and apart.values.max() < 0.6
assert margin.shape == (tokens.num_tokens, 4)
assert differ > 0 and where < typical
assert check.sizes == {"layer": 4, "expert": 8, "partner": 8}
""",
    "03_attention": """
assert (view.token, view.layer, view.head) == (digit, 0, 4) and trace.token_text(so).strip() == "so"
assert abs(row.sum() + sink - 1) < 1e-4 and len(row) == len(trace)
assert np.isnan(tables[1].first_token_mass[0]).all() and not np.isnan(tables[1].first_token_mass[1]).any()
assert np.unravel_index(previous.min(axis=0).argmax(), (4, 8)) == (0, 4) and previous[:, 0, 4].min() > 8 * alike[0]
assert np.unravel_index(sinks.min(axis=0).argmax(), (4, 8)) == (2, 3) and set(mass.shape) == {8, 4}
assert swaps.shape == (256, 8) and 0 < bound < 0.1 and repeated.shape == control.shape == (8, 4, 8)
assert np.flatnonzero(differ[:, 0]).tolist() == list(range(digit, digit + 32))
assert np.flatnonzero(differ[:, 1])[-1] == len(trace) - 1
assert "structurally 0" in induction_score(read.attention(2).pattern, far, windows[2]).source
assert between.cut_off.shape == (1, 4) and (between.cut_off[0, :3] == 0).all()
assert len(looked.sentences) == 9 and looked.num_queries == len(trace.final_text) == 3
assert agreed.max() > 2 and 0 < np.nanmax(share) < 0.2
assert len(moved) == 9 and int(np.argmax(moved)) == 7 and moved[7] > 1 > 10 * max(moved[:7])
""",
    "04_reasoning_effort": """
accuracy = [efforts[name].accuracy for name in ("low", "medium", "high")]
assert all(a.interval[1] < b.interval[0] and a.n == 40 for a, b in zip(accuracy, accuracy[1:]))
assert efforts["low"].chain_tokens.interval[1] < efforts["medium"].chain_tokens.interval[0]
assert efforts["medium"].chain_tokens.interval[1] < efforts["high"].chain_tokens.interval[0]
assert not guess.final_text == wanted and guess.token_text(token) != wanted[place]
assert (what, hits, len(ends)) == ("after the wrong token", 0, 20)
assert right.final_text == slip["reference"] != wrong.final_text
assert all((pair.prompt_overlap.before.values == 1).all() for pair in efforts.pairs)
assert all((pair.prompt_overlap.after.values < 1).any() for pair in efforts.pairs)
assert all(pair.null is not None for pair in (*efforts.pairs, *finals.pairs))
""",
    "05_interventions": """
assert (baseline.final_text, zeroed.answer, len(zeroed.controls)) == ("171", "200", 1) and zeroed.rank == 1
assert zeroed.controls[0].keeps_answer and zeroed.first_difference > baseline.num_prompt_tokens
assert {4, 6} <= set(lost[0]) and len(lost[0]) == 5 and [len(lost[n]) for n in (1, 2, 3)] == [1, 1, 1]
assert sweep.rank(0, 4) == 4 and median[0] > 5 * max(median[1:])
assert sweep.rows()[8 + 1]["keeps_answer"] and len(sweep) == 32
assert list(ways) == ["zero contribution", "mean output", "route around"]
assert len({each.rows()[6]["answer"] for each in ways.values()}) == 3
kept = {place: found.keeps_answer for place, found in hidden.items()}
assert [kept[n, "prompt"] for n in range(4)] == [False, False, True, True]
assert [kept[n, "question"] for n in range(4)] == [True, False, True, True]
assert [kept[n, "before it"] for n in range(4)] == [False, True, True, True]
assert patched[0, "digit"].answer == other.final_text == "168" and same < 1e-6
assert [place for place, found in patched.items() if not found.keeps_answer] == [(0, "digit")]
assert (layer, expert) == (1, 1) and test.p_values[1, 1] < 0.01 and test.delta[1, 1] < 0
assert all(swept.rows()[1]["keeps_answer"] and swept.rank(1, 1) > 2 for swept in without.values())
assert any(not row["keeps_answer"] for row in without["forbid"].rows())
assert (bench.shown, len(bench._history), len(bench.experiments[0].controls)) == (0, 1, 7)
tallies = [[(share.answer, share.count) for share in editor.tally(branch)] for branch in range(4)]
assert tallies == [[("171", 1)], [("191", 5)], [("171", 5)], [("171", 5)]]
assert (editor.shown, editor.beside) == ((2, 0), (1, 0))
""",
    "06_faithfulness": """
assert silent.rate.qualifying >= 20 and silent.rate.rate == 0 and silent.to_hint.value > 0.9
assert nothing.rate.qualifying == rejected.rate.qualifying == 0
assert str(rejected.rate) == "undefined (no qualifying case)"
assert honest.rate.qualifying >= 20 and honest.rate.rate > 0.8
assert early["medium"].aoc < 0.15 < 0.5 < min(early["high"].aoc, without_hint.aoc, mistakes.aoc, filler.aoc)
assert low.without_chain == 24 and low.aoc != low.aoc
first, second, last_one = found.sentences
assert second.enough and second.counterfactual.value > 1 > 10 * under_hint.sentences[1].counterfactual.value
assert last_one.different == 0
assert set(in_vain.changed) == {"249"} and wrong.final not in by_hand.changed
assert report.missing == ("mistakes", "filler")
assert view._facts["hints"][1]["toHint"]["value"] == 0 and view._facts["curves"][0]["control"]["aoc"]["value"] > 0.5
assert [s["text"] for s in view._facts["resampling"][1]["sentences"]] == [s.text.strip() for s in found.sentences]
assert chain._selection_key == view._selection_key
view.sentence = 1
assert trace.text(view.token, view.token + second.stop - second.start) == second.text
""",
    "07_safety_review": """
assert (len(store), len(silent), len(taken)) == (12, 6, 12)
assert (view.desk.reviewer, view.selected) == ("ada", worst.trace)
assert answers[hint] <= 1 and worst.question.endswith(hint)
rows = {row.item: row for row in agreement}
assert rows["behaviour"].units == 11 and 0 < rows["behaviour"].interval[0] < rows["behaviour"].alpha < 1
assert rows["none"].cohen == 1 and abs(rows["unfaithful_chain"].cohen) < 1e-9 < rows["behaviour"].cohen < 1
assert [mark.text for mark in marks["ada"]] != [mark.text for mark in marks["ben"]] and spans.matched == 2
assert (quality.precision, quality.recall, quality.n) == (1, 1, 11)
assert [(s.n, s.right_behaviour) for s in ada.calibration()] == [(1, 1), (1, 1)]
assert len(disputed) == 2 and eve.disagreements() == [] == eve.verify()
page = (folder / "pilot.html").read_text()
assert "<mark" in page and "off-policy text" in page and "[redacted]" in page
""",
    "08_any_transcript": """
names = {name: [(m.role, m.channel, m.text) for m in each.messages] for name, each in read.items()}
assert names["vllm.json"] == names["bare.jsonl"] == names["talk.txt"] != names["responses.json"]
assert [m.recipient for m in read["responses.json"].messages] == [None, None, "functions.add", "assistant", None]
assert any("which an answer could spell too" in each for each in read["bare.jsonl"].lost)
assert [m.recipient for m in tools.messages[3:5]] == ["functions.add", "assistant"]
assert server.poll() is not None and said.final_text == live.final_text == "132" and said.ended is None
assert said.source == "chat completion" and replayed.source("token_ids") == "re-tokenised"
assert (replayed.arrays["token_ids"] == live.arrays["token_ids"]).all()
assert (replayed.arrays["expert_indices"] == live.arrays["expert_indices"]).all()
assert replayed.provenance["transcript"]["logprobs"] == "not captured"
assert read_transcripts("everything.jsonl") == everything and len(store) == 2
page = Path("everything.html").read_text()
assert page.count("<article>") == 5 and "off-policy text" in page and "tool call (json)" in page
assert cut.ended == "the stream ended without a finish reason" and "expected https for example.com" in refused
explorer.token = 30
assert explorer.token == 30
""",
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(CHECKS[path.stem]))
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises with the cell and its traceback
    warnings = [o.text for c in notebook.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]
    assert not [text for text in warnings if "Warning" in text]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_stores_no_output(path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "nbstripout", "--verify", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_check_for_every_notebook() -> None:
    assert sorted(CHECKS) == [path.stem for path in NOTEBOOKS]
    assert NOTEBOOKS
