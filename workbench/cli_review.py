"""The commands ``workbench review`` and ``workbench serve``: the desk, or a notebook, for people who do not code."""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from workbench.course.predictions import FOLDER_VARIABLE
from workbench.serving import FIRST_PORT, ServingError, serve_notebook
from workbench.terminal import described, printable

__all__ = ["add"]

REVIEW_EXAMPLES = """examples:
  workbench review runs --begin pilot --reviewers ada,ben --adjudicator eve
  workbench review runs --begin hints --reviewers ada,ben --flag "influence in the prompt" --effort low
  workbench review runs
  workbench review runs --review pilot --reviewer ada
  workbench review runs --reviewer ben --url postgresql://ben@reviews.example/traces"""

SERVE_EXAMPLES = """examples:
  workbench serve lesson.ipynb
  workbench serve lesson.ipynb --no-browser --port 8900
  workbench serve lesson.ipynb --ready 10 --predictions class-of-today"""

_FILTERS = {
    "model": "captured from this model",
    "effort": "low, medium or high",
    "prompt-set": "of this prompt set",
    "flag": "with this signal",
    "tag": "with this tag",
    "since": "captured on this day or later, as 2026-11-24",
    "until": "captured on this day or earlier",
    "text": "with these words in one message",
}


def add(commands: Any) -> None:
    """Add both commands to the subparsers of ``workbench``."""
    review = commands.add_parser("review", help="open the review desk of a store, or begin a review")
    described(review, REVIEW_EXAMPLES)
    review.description = (
        "Serve the review desk alone, on this machine's loopback, for people who do not code. Without --reviewer the "
        "page asks who is there; names are stated, not proven. With --begin a review is begun instead, over all "
        "traces of the store or those that the filters leave."
    )
    review.add_argument("store", type=Path, metavar="STORE", help="folder of traces")
    review.add_argument("--review", metavar="NAME", help="which one; needed where the store has several")
    review.add_argument("--reviewer", metavar="NAME", help="whose desk it is")
    review.add_argument("--url", metavar="DATABASE", help="postgresql://…; default: SQLite in the folder")
    _server_options(review)
    _begin_options(review.add_argument_group("begin a review"))
    review.set_defaults(run=_review)

    serve = commands.add_parser("serve", help="show a notebook without its code, for a class")
    described(serve, SERVE_EXAMPLES)
    serve.description = (
        "Serve a notebook as a page without its code, on this machine's loopback behind a token. Each browser has a "
        "kernel of its own, which stops when its page is closed."
    )
    serve.add_argument("notebook", type=Path)
    _server_options(serve)
    serve.add_argument(
        "--predictions", type=Path, metavar="FOLDER", help="keep what the class predicts there; made if need be"
    )
    serve.add_argument(
        "--ready", type=int, default=0, metavar="N", help="run the notebook in N kernels before the class comes"
    )
    serve.set_defaults(run=_serve)


def _server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-browser", action="store_true", help="print the address instead of opening a browser")
    parser.add_argument("--port", type=int, help=f"default: {FIRST_PORT}, or the next free one")


def _begin_options(group: Any) -> None:
    group.add_argument("--begin", metavar="NAME", help="of the new review")
    group.add_argument("--reviewers", metavar="NAMES", help="who reads, as ada,ben")
    group.add_argument("--adjudicator", metavar="NAME", action="append", help="who settles; can be given again")
    group.add_argument("--rubric", type=Path, metavar="FILE", help="YAML; default: the one for reasoning traces")
    group.add_argument("--per-trace", type=int, default=2, metavar="N", help="verdicts on each; default: %(default)s")
    for name, what in _FILTERS.items():
        group.add_argument(f"--{name}", help=f"only traces {what}")


def _review(options: argparse.Namespace) -> None:
    if find_spec("sqlalchemy") is None:
        raise ServingError(
            "Reviews need packages that are not installed. Install them with: "
            'pip install "moe-workbench[review,serve]"'
        )
    _check_together(options)
    if options.begin is not None:
        _begin(options)
    else:
        _open(options)


def _check_together(options: argparse.Namespace) -> None:
    """A filter that would do nothing must not look as if it did."""
    of_begin = ["reviewers", "adjudicator", "rubric", *(name.replace("-", "_") for name in _FILTERS)]
    idle = [name for name in of_begin if getattr(options, name) is not None]
    if options.begin is None and idle:
        raise ServingError(f"--{idle[0].replace('_', '-')} is for a review that begins; add --begin NAME")
    if options.begin is not None and not options.reviewers:
        raise ServingError("expected --reviewers with --begin, such as --reviewers ada,ben")


def _begin(options: argparse.Namespace) -> None:
    from workbench.catalogue import Catalogue
    from workbench.review import Reviewer, begin_review, default_rubric, load_rubric

    rubric = load_rubric(options.rubric) if options.rubric else default_rubric()
    people = [Reviewer(name.strip()) for name in options.reviewers.split(",")]
    people += [Reviewer(name, may_adjudicate=True) for name in options.adjudicator or ()]
    catalogue = Catalogue(options.store, options.url)
    catalogue.update()
    wanted = {name.replace("-", "_"): getattr(options, name.replace("-", "_")) for name in _FILTERS}
    traces = [entry.hash for entry in catalogue.find(**wanted)]
    if not traces:
        raise ServingError(
            f"no trace of {options.store} is left to review: the folder is empty, or the filters too narrow"
        )
    begin_review(catalogue, options.begin, people, traces=traces, rubric=rubric, per_trace=options.per_trace)
    names = ", ".join(f"{p.name} (adjudicates)" if p.may_adjudicate else p.name for p in people)
    print(printable(f"{options.begin}: {len(traces):,} traces for {names}; rubric {rubric.name} {rubric.version}"))
    print(printable(f"Each of them opens a desk with: workbench review {options.store} --reviewer NAME"))


def _open(options: argparse.Namespace) -> None:
    from workbench.catalogue import Catalogue
    from workbench.review.page import write_page

    served = _served(Catalogue(options.store, options.url), options)
    os.environ |= served.environment()
    with TemporaryDirectory(prefix="workbench-review-") as folder:
        page = write_page(Path(folder), served.review)
        serve_notebook(page, port=options.port, open_browser=not options.no_browser)


def _served(catalogue: Any, options: argparse.Namespace) -> Any:
    """Find out before anything is served what would be wrong on the page."""
    from workbench.review import open_desk, reviewers, reviews
    from workbench.review.page import Served

    known = reviews(catalogue)
    if not known:
        raise ServingError(
            f"There is no review in {options.store} yet. Begin one with: "
            f"workbench review {options.store} --begin NAME --reviewers ada,ben --adjudicator eve"
        )
    if options.review is None and len(known) > 1:
        raise ServingError(f"There are several reviews here; choose one with --review: {', '.join(known)}")
    review = options.review or known[0]
    people = reviewers(catalogue, review)
    if options.reviewer is not None:
        open_desk(catalogue, review, options.reviewer)
    store = str(catalogue.folder.resolve())
    return Served(store, options.url, review, options.reviewer, tuple(person.name for person in people))


def _serve(options: argparse.Namespace) -> None:
    if options.predictions is not None:
        options.predictions.mkdir(parents=True, exist_ok=True)
        os.environ[FOLDER_VARIABLE] = str(options.predictions.resolve())  # the kernels' too
    browser = not options.no_browser
    serve_notebook(options.notebook, port=options.port, open_browser=browser, ready=options.ready)
