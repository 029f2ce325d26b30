"""Whether a log and what follows from it are whole."""

from workbench.catalogue import Catalogue
from workbench.review import log, state
from workbench.review.beginning import make_tables
from workbench.review.log import Head

__all__ = ["verify"]


def verify(catalogue: Catalogue, known: Head | None = None) -> list[str]:
    """Check the whole log and the tables that follow from it; return what is wrong, nothing where all is whole.

    The chain shows changes and gaps. Whoever may write to the database could write all of it anew: to notice that,
    give the `Head` that an export has.
    """
    make_tables(catalogue)
    with catalogue.database.reading() as connection:
        return [*log.problems(connection, known), *state.differences(connection)]
