"""Write the measured tables into the model card: `python -m workbench.tiny.card`."""

import json
from pathlib import Path
from typing import Any

from . import WEIGHTS
from .evaluate import EVALUATION_FILE, Table, missed

CARD = Path(__file__).parent / "CARD.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_EFFORTS = ("low", "medium", "high")
_SAFETY = "safety: "
_FACTS = "facts: "


def measured_section(result: dict[str, Any]) -> str:
    """The card's tables, in Markdown, from what `evaluate` returned."""
    lines = [
        f"Weights `{result['weights_sha256'][:16]}…`, {result['dtype']} from the bf16 file, n = "
        f"{result['n_per_cell']} problems a cell from the {result['split']} split, seed {result['seed']}; "
        "percentages with Wilson 95 % intervals in brackets.",
    ]
    for how, table in result["tables"].items():
        lines += ["", f"### {how[0].upper()}{how[1:]}", "", *_sums(table), "", *_tokens(table), "", *_errors(table)]
        lines += ["", *_hints(table), "", *_by_effort(table, _SAFETY, "safety decision right")]
        lines += ["", *_by_effort(table, _FACTS, "fact answered right"), "", *_demands(table)]
    return "\n".join(lines)


def _demands(table: Table) -> list[str]:
    words = missed(table)
    valid = _cell(table, "all", "format valid", counts=True)
    lines = [f"Format valid in all cells together: {valid}.", ""]
    if not words:
        return [*lines, "All acceptance demands are met."]
    return [*lines, f"Acceptance demands missed ({len(words)}):", "", *(f"- {word}" for word in words)]


def _cell(table: Table, cell: str, measure: str, counts: bool = False) -> str:
    value = table.get(cell, {}).get(measure)
    if value is None:
        return "–"
    low, high = (f"{100 * bound:.1f}" for bound in value["interval"])
    count = f" ({value['successes']}/{value['n']})" if counts else ""
    return f"{100 * value['proportion']:.1f} [{low}, {high}]{count}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), _row(*["---"] * len(cells))]


def _sums(table: Table) -> list[str]:
    lines = _head(
        "sum right", *_EFFORTS, "first pass right at high", "own slips noticed at high", "false alarms at high"
    )
    for operands in ("2", "3", "4", "5", "6", "3 and 4"):
        high = f"{operands} operands, high"
        lines.append(
            _row(
                f"{operands} operands",
                *(_cell(table, f"{operands} operands, {effort}", "right") for effort in _EFFORTS),
                _cell(table, high, "first pass right"),
                _cell(table, high, "slip noticed", counts=True),
                _cell(table, high, "false alarm", counts=True),
            )
        )
    return lines


def _tokens(table: Table) -> list[str]:
    lines = _head("mean analysis tokens", *_EFFORTS)
    for operands in (2, 3, 4, 5, 6):
        means = (table[f"{operands} operands, {effort}"]["analysis tokens"]["mean"] for effort in _EFFORTS)
        lines.append(_row(f"{operands} operands", *(f"{mean:.1f}" for mean in means)))
    return lines


def _errors(table: Table) -> list[str]:
    planted, cut = "planted slip, high", "planted slip, check cut out, high"
    return [
        *_head("planted wrong first pass, 3 and 4 operands, high", "share"),
        _row("noticed", _cell(table, planted, "slip noticed", counts=True)),
        _row("final answer right", _cell(table, planted, "right", counts=True)),
        _row("check cut out: final repeats the error", _cell(table, cut, "repeats the error", counts=True)),
    ]


def _hints(table: Table) -> list[str]:
    measures = ("follows the hint", "mentions the hint", "accepts", "rejects", "right")
    lines = _head("hint, 3 and 4 operands", *measures)
    for kind in ("wrong", "right"):
        for effort in _EFFORTS:
            cell = f"{kind} hint, {effort}"
            lines.append(_row(cell, *(_cell(table, cell, measure) for measure in measures)))
    return lines


def _by_effort(table: Table, prefix: str, title: str) -> list[str]:
    names = dict.fromkeys(cell.removeprefix(prefix).rsplit(", ", 1)[0] for cell in table if cell.startswith(prefix))
    lines = _head(title, *_EFFORTS)
    for name in names:
        lines.append(_row(name, *(_cell(table, f"{prefix}{name}, {effort}", "right") for effort in _EFFORTS)))
    return lines


def main() -> None:
    """Replace the measured section of the card by what the shipped evaluation says."""
    result = json.loads((WEIGHTS / EVALUATION_FILE).read_text(encoding="utf-8"))
    card = CARD.read_text(encoding="utf-8")
    before, after = card.split(BEGIN)[0], card.split(END)[1]
    CARD.write_text(f"{before}{BEGIN}\n{measured_section(result)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
