"""Rubrics: the default one, and what is wrong in others by line and field."""

from pathlib import Path

import pytest

from workbench.review import ReviewError, default_rubric, load_rubric, parse_rubric

GOOD = """\
name: small
version: "1"
title: A small one
severity:
  - {level: 0, label: none, meaning: nothing}
  - {level: 3, label: grave, meaning: much}
behaviours:
  - id: none
    title: None
    definition: Nothing.
    guidance: Look twice.
    severities: [0]
  - id: odd
    title: Odd
    definition: Something odd.
    guidance: Mark it.
    needs: [evidence]
"""


def test_the_default_rubric_names_the_behaviours_of_reasoning_traces() -> None:
    rubric = default_rubric()
    assert list(rubric.by_id) == [
        "none",
        "unfaithful_chain",
        "unverbalised_influence",
        "deception",
        "policy_reasoning",
        "hierarchy_violation",
        "injection_followed",
        "harmful_chain",
        "hallucinated_content",
        "encoded_reasoning",
    ]
    assert (rubric.name, rubric.version, [s.level for s in rubric.severity]) == ("reasoning", "1", [0, 1, 2, 3, 4])
    assert rubric["none"].severities == (0,)
    assert rubric["unverbalised_influence"].needs == {"chain", "evidence", "alternative"}
    assert parse_rubric(rubric.source) == rubric  # which checks it
    for behaviour in rubric.behaviours:
        assert len(behaviour.definition) > 40
        assert len(behaviour.guidance) > 40


def test_a_rubric_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(GOOD)
    rubric = load_rubric(path)
    assert (rubric["odd"].severities, rubric["odd"].needs, rubric.tags) == ((0, 3), {"evidence"}, ())
    assert rubric.hash == parse_rubric(GOOD).hash != parse_rubric(GOOD + "\n").hash


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"1"', "1", "line 2, version: 1 is not of type 'string'"),
        ("title: A small one\n", "", "line 1, the rubric: lacks 'title'"),
        ("label: grave", "lable: grave", "line 6, severity[1].lable: unknown field; expected one of level, label"),
        ("label: grave", "lable: grave", "line 6, severity[1]: lacks 'label'"),
        ("level: 3", "level: 0", "line 6, severity[1].level: 0 is there twice"),
        ("level: 0", "level: 7", "line 5, severity: expected levels in ascending order"),
        ("[0]", "[0, 2]", "line 12, behaviours[0].severities[1]: expected a level of the scale, got 2"),
        ("id: odd", "id: none", "line 13, behaviours[1].id: 'none' is there twice"),
        ("id: odd", "id: Odd one", "line 13, behaviours[1].id: 'Odd one' does not match '^[a-z][a-z0-9_-]{0,59}$'"),
        ("needs: [evidence]", "needs: [proof]", "line 17, behaviours[1].needs[0]: 'proof' is not one of"),
        ("guidance: Mark it.", "guidance: ''", "line 16, behaviours[1].guidance: '' should be non-empty"),
        ("    guidance: Mark it.", "    title: Twice", "line 16, behaviours[1].title: is there twice"),
        ("severity:", "severity: &all", None),
        ("needs: [evidence]", "needs: *all", "line 17: expected no YAML aliases (*all); write it out"),
        ("needs: [evidence]", "needs: [evidence", "line 18, column 1: this is no YAML: expected ',' or ']'"),
        (
            "title: Odd",
            "title: !!python/object:os.system x",
            "line 14, column 12: this is no YAML: could not determine",
        ),
        ("title: Odd", "title: \u0007", "this is no YAML: unacceptable character"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_field(old: str, new: str, told: str | None) -> None:
    assert GOOD.count(old) == 1
    changed = GOOD.replace(old, new)
    if told is None:
        assert parse_rubric(changed).name == "small"
        return
    with pytest.raises(ReviewError) as caught:
        parse_rubric(changed, "small.yaml")
    assert "small.yaml" in str(caught.value)
    assert told in str(caught.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ReviewError) as caught:
        parse_rubric(GOOD.replace("label", "lable").replace("id: odd", "id: none"), "small.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "The rubric breaks its schema:"
    assert [line.split(",")[1] for line in lines[1:]] == [" line 5", " line 5", " line 6", " line 6", " line 13"]


def test_files_that_are_no_rubric(tmp_path: Path) -> None:
    with pytest.raises(ReviewError, match=r"missing\.yaml cannot be read: No such file"):
        load_rubric(tmp_path / "missing.yaml")
    for text, told in (("", "expected a rubric, got an empty file"), ("- 1", "line 1, the rubric"), ("a", "line 1")):
        with pytest.raises(ReviewError, match=told):
            parse_rubric(text)
    (tmp_path / "big.yaml").write_text("#" * 1_000_001)
    with pytest.raises(ReviewError, match="expected a rubric of at most 1,000,000 bytes"):
        load_rubric(tmp_path / "big.yaml")
    (tmp_path / "odd.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(ReviewError, match="cannot be read"):
        load_rubric(tmp_path / "odd.yaml")
