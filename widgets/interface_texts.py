"""What a view says, in the language of the course or in another one: `widgets/js/texts.js` looks it up."""

from typing import Any

import traitlets

from workbench.course.texts import interface_texts, spoken_language

__all__ = ["Speaking"]


class Speaking(traitlets.HasTraits):
    """A view whose interface is translated: English texts are looked up in the catalogue of its language.

    Raises:
        CourseError: there are no catalogues of the language.
    """

    language = traitlets.Unicode(help='e.g. "zh_CN"; empty: English').tag(sync=True)
    _texts = traitlets.Dict(help="text by English text; what is absent stays English").tag(sync=True)

    @traitlets.default("language")
    def _language_of_the_course(self) -> str:
        return spoken_language()

    @traitlets.default("_texts")
    def _texts_of_the_language(self) -> dict[str, str]:
        return interface_texts(self.language)

    @traitlets.validate("language")
    def _known_language(self, proposal: Any) -> str:
        interface_texts(proposal["value"])  # raises where there is none
        return str(proposal["value"])

    @traitlets.observe("language")
    def _say_it_otherwise(self, change: Any) -> None:
        self._texts = interface_texts(change["new"])
