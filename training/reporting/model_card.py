"""The model card: what a model is for, what it was made of, how good it is and where it is not, as Markdown.

It has the sections of Mitchell and others, Model cards for model reporting, 2019, and states the report's facts.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from training.reporting.facts import AUC, Facts
from training.reporting.recommendation_text import NAMES, diagnosis_text, recommendation_text
from training.reporting.wording import MEANINGS, OUTCOMES, estimate_text, number_text

TEMPLATE = "model_card.md"
CARD_FILE = "model_card.md"
_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


def model_card(facts: Facts) -> bytes:
    """The model card of a training."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown, whose characters `plain` escapes
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": plain, "code": code}
    card = environment.get_template(TEMPLATE).render(
        facts=facts,
        manifest=facts.manifest,
        evaluation=facts.evaluation,
        repeated=facts.repeated,
        recommendation=recommendation_text(facts.recommendation),
        diagnosis=diagnosis_text(facts.diagnosis),
        names=NAMES,
        meanings=MEANINGS,
        outcomes=OUTCOMES,
        auc=AUC,
        number=number_text,
        estimate=estimate_text,
    )
    return card.encode()


def plain(text: object) -> str:
    """Text of the data on one line, in which no character has a meaning in Markdown.

    >>> plain("a|b\\n# c")
    'a\\\\|b \\\\# c'
    """
    return " ".join(str(text).split()).translate(_SPECIAL)


def code(name: str) -> str:
    """A name as code.

    >>> code("cart_adds_30m")
    '`cart_adds_30m`'
    """
    return f"`{name.replace('`', '')}`"
