"""Phrases in ten languages: the messages of the Django web framework and their translations, under its BSD licence."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

# All in Latin script, so that no letter alone gives a language away.
LANGUAGES = {
    "en": "English",
    "fr": "French",
    "de": "German",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "nl": "Dutch",
    "pl": "Polish",
    "sv": "Swedish",
    "tr": "Turkish",
}
_FEWEST, _MOST = 4, 30
# A place for a value, markup, or a key to press.
_NO_PHRASE = re.compile(r"[%{}<>&\n`_\\]|\w\.\w")
# One message of so many is held out, in all languages.
_HELD_OUT = 5


def phrases(django: Path) -> Iterator[dict[str, str]]:
    """Messages that are whole phrases, with ``text``, ``language`` and ``split``; a message is on one side in all.

    Args:
        django: folder of the package, as its wheel holds it.
    """
    # Comes with what builds the documentation; whoever only reads the data needs none.
    from babel.messages.mofile import read_mo

    rows: dict[tuple[str, str], str] = {}
    for path in sorted(django.glob("**/locale/*/LC_MESSAGES/django.mo")):
        language = LANGUAGES.get(path.parent.parent.name)
        if language is None or language == "English":
            continue
        with path.open("rb") as file:
            catalog = read_mo(file)
        for message in catalog:
            if isinstance(message.id, str) and isinstance(message.string, str):
                rows["English", message.id] = message.id
                rows[language, message.id] = message.string
    for (language, message), text in sorted(rows.items()):
        if _FEWEST <= len(text.split()) <= _MOST and not _NO_PHRASE.search(text):
            number = int(hashlib.sha256(message.encode()).hexdigest(), 16)
            yield dict(text=text.strip(), language=language, split="val" if number % _HELD_OUT == 0 else "train")
