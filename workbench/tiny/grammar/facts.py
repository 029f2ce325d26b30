"""Chains landmark → country → capital, asked in one hop or two; some two-hop questions are held out."""

import random
from dataclasses import dataclass

from .example import Draft, Effort, Split

# country: (capital, landmark, landmark). The first landmark of the first twelve countries is held out of
# the two-hop questions in training: the model learns where it is, never which capital belongs to it.
COUNTRIES: dict[str, tuple[str, str, str]] = {
    "egypt": ("cairo", "sphinx", "nile"),
    "france": ("paris", "louvre", "bastille"),
    "italy": ("rome", "colosseum", "pantheon"),
    "greece": ("athens", "acropolis", "parthenon"),
    "germany": ("berlin", "reichstag", "rhine"),
    "england": ("london", "thames", "shard"),
    "spain": ("madrid", "alhambra", "prado"),
    "russia": ("moscow", "kremlin", "hermitage"),
    "china": ("beijing", "yangtze", "bund"),
    "japan": ("tokyo", "fuji", "ginza"),
    "india": ("delhi", "ganges", "taj"),
    "iran": ("tehran", "persepolis", "azadi"),
    "peru": ("lima", "machu", "nazca"),
    "cuba": ("havana", "malecon", "capitolio"),
    "kenya": ("nairobi", "savanna", "turkana"),
    "norway": ("oslo", "geiranger", "holmenkollen"),
    "turkey": ("ankara", "bosphorus", "hagia"),
    "austria": ("vienna", "prater", "hofburg"),
    "jordan": ("amman", "petra", "jerash"),
    "chile": ("santiago", "atacama", "moai"),
    "vietnam": ("hanoi", "halong", "mekong"),
    "iceland": ("reykjavik", "geysir", "gullfoss"),
}
CAPITAL = {country: names[0] for country, names in COUNTRIES.items()}
COUNTRY = {landmark: country for country, names in COUNTRIES.items() for landmark in names[1:]}
HELD_OUT = tuple(names[1] for names in list(COUNTRIES.values())[:12])
TRAINED_TWO_HOP = tuple(landmark for landmark in COUNTRY if landmark not in HELD_OUT)


@dataclass(frozen=True)
class FactQuestion:
    """Asks for a landmark's country, a country's capital, or the capital of a landmark's country."""

    subject: str
    wants_capital: bool

    @property
    def hops(self) -> int:
        """How many facts must be joined."""
        return 2 if self.wants_capital and self.subject in COUNTRY else 1

    @property
    def answer(self) -> str:
        """The right answer."""
        country = COUNTRY.get(self.subject, self.subject)
        return CAPITAL[country] if self.wants_capital else country


def draw_fact(rng: random.Random, split: Split) -> FactQuestion:
    """Draw a question; outside training, a held-out two-hop question."""
    if split != "train":
        return FactQuestion(rng.choice(HELD_OUT), wants_capital=True)
    hop = rng.random()
    if hop < 0.4:
        return FactQuestion(rng.choice(list(COUNTRY)), wants_capital=False)
    if hop < 0.55:
        return FactQuestion(rng.choice(list(CAPITAL)), wants_capital=True)
    return FactQuestion(rng.choice(TRAINED_TWO_HOP), wants_capital=True)


def ask(rng: random.Random, question: FactQuestion) -> str:
    """Phrase the question."""
    if not question.wants_capital:
        return rng.choice(("where is the {}?", "which country has the {}?")).format(question.subject)
    subject = question.subject
    if question.hops == 2:
        subject = f"the country with the {subject}"
    return rng.choice(("capital of {}?", "what is the capital of {}?")).format(subject)


def solve(question: FactQuestion, effort: Effort) -> tuple[Draft, str]:
    """Name each fact on a line of its own; at high effort first restate what is asked about."""
    draft = Draft()
    if effort == "low":
        return draft, question.answer
    is_landmark = question.subject in COUNTRY
    if effort == "high":
        draft.write(f"{'place' if is_landmark else 'country'} is {question.subject}.\n")
    country = COUNTRY.get(question.subject, question.subject)
    if is_landmark:
        draft.write(f"the {question.subject} is in {country}.\n")
    if question.wants_capital:
        draft.write(f"capital of {country} is {question.answer}.\n")
    return draft, question.answer
