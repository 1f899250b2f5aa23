import unicodedata

import pytest

from interp_toolkit import InterpToolkitError
from interp_toolkit.bridges.names import Entity, find_names

NAMED = [
    ("US", "the US economy"),
    ("US", "the US's economy"),
    ("US", "US-led"),
    ("US", "(US)"),
    ("US", "_US_"),
    ("U.S.", "in the U.S."),
    ("U.S.", "the U.S. government"),
    ("U.S.", "the U.S, and others"),
    ("U.S.", "the U. S. government"),
    ("U.S.", "u.s. history"),
    ("C++", "learn C++"),
    ("C++", "c++, and others"),
    ("C++", "C++"),
    ("C", "the language C."),
    ("Yahoo!", "Yahoo!"),
    ("Yahoo!", "Yahoo! Answers"),
    (".NET", "the .NET framework"),
    ("!!!", "the band !!!"),
    ("Martin Luther King Jr.", "Martin Luther King Jr."),
    ("Martin Luther King Jr.", "Martin Luther King Jr, a minister"),
    ("Martin Luther King, Jr.", "martin luther king jr's speech"),
    ("St. Kitts", "St Kitts and Nevis"),
    ("Washington, D.C.", "Washington D.C"),
    ("São Paulo", "Sao Paulo"),
    ("Sao Paulo", "São Paulo (city)"),
    ("Łódź", "Lodz"),
    ("Malmø", "malmo"),
    ("Côte d'Ivoire", "Cote d\u2019Ivoire"),
    ("Poland", "Poland's rivers"),
    ("Poland", "Poland\u2019s rivers"),
    ("Poland", "POLAND"),
    ("Poland", "a Poland\u2011based firm"),
    ("Poland", "1939-Poland"),
    ("Guinea-Bissau", "Guinea Bissau"),
    ("Guinea-Bissau", "Guinea\u2013Bissau"),
    ("New York", "new\n york"),
    ("2", "number 2."),
    ("2", "2, 3"),
    ("He", "its symbol is He"),
    ("NASA", "NASA"),
    ("日本", "「日本」"),
]
NOT_NAMED = [
    ("US", "Jerusalem"),
    ("US", "tell us more"),
    ("US", "Us"),
    ("US", "USA"),
    ("US", "US2"),
    ("WHO", "who is it"),
    ("AIDS", "it aids"),
    ("He", "he said"),
    ("He", "The"),
    ("U.S.", "U.S.S.R."),
    ("U.S.", "the US"),
    ("U.S.", "plus"),
    ("C++", "C"),
    ("C++", "C+"),
    ("C", "C++"),
    ("C", "C#"),
    ("Jr.", "JrA"),
    ("Oman", "Romance"),
    ("Niger", "Nigeria"),
    ("Poland", "Polandball"),
    ("Poland", "Polands"),
    ("New York", "New, York"),
    ("2", "2.5"),
    ("2", "12"),
    ("2", "1,2"),
    ("5", "2.5"),
    (".NET", "planet"),
    (".", "a b"),
]


@pytest.mark.parametrize(("name", "text"), NAMED)
def test_named(name, text):
    for form in ("NFC", "NFD"):
        assert Entity("Something else", (name,)).named_in(unicodedata.normalize(form, text))
        assert Entity(unicodedata.normalize(form, name)).named_in(text)


@pytest.mark.parametrize(("name", "text"), NOT_NAMED)
def test_not_named(name, text):
    assert not Entity(name).named_in(text)
    assert not Entity("Something else", (name,)).named_in(text)


@pytest.mark.parametrize("name", [name for name, _ in NAMED])
def test_every_name_names_itself_alone_and_in_a_sentence(name):
    entity = Entity("Something else", (name,))
    assert entity.named_in(name)
    assert entity.named_in(f"It is {name}, or ({name}).")
    assert not entity.named_in(f"x{name}")
    assert not entity.named_in(f"{name}x")
    assert not entity.named_in("")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Poland", "Polish."),
        ("Poland", "Poland's rivers"),
        ("Japan", "the Japanese yen"),
        ("Italy", "ITALIAN"),
        ("Thailand", "where pad Thai comes from"),
        ("Peru", "Perúvian"),
        ("Costa Rica", "a Rican"),
        ("United States", "the U.S. dollar"),
    ],
)
def test_what_is_derived_from_a_name_hints_at_it(name, text):
    assert Entity(name, ("U.S.",)).hinted_in(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Poland", "politics in Warsaw"),
        ("Maine", "The main language is English"),
        ("Thailand", "That is so"),
        ("New York", "New Jersey"),
        ("the Netherlands", "The dutch"),
        ("baseball", "Base"),
        ("Poland", ""),
    ],
)
def test_what_begins_otherwise_or_small_does_not_hint(name, text):
    assert not Entity(name, ("Republic",)).hinted_in(text)


def test_many_names_in_many_texts():
    entities = [Entity("Poland", ("Polska",)), Entity("United States", ("US", "U.S.")), Entity("Oman")]
    texts = ["Polska", "the U.S. and Poland", "Romance", "", "Polska"]
    assert find_names(entities, texts).tolist() == [[entity.named_in(text) for entity in entities] for text in texts]
    assert find_names(entities, texts).tolist()[1] == [True, True, False]
    assert find_names(entities, []).shape == (0, 3)
    assert find_names([], texts).shape == (5, 0)


@pytest.mark.parametrize(
    ("name", "aliases", "message"),
    [
        ("", (), "the name of an entity is empty"),
        ("Poland", ("Polska", " "), "alias 1 of 'Poland' is empty, and would be in every text; leave it out"),
        ("Poland", ("-",), "alias 0 of 'Poland' is empty"),
        ("Poland", ("\u0301",), "alias 0 of 'Poland' is empty"),
        ("Poland", "Polska", "expected a tuple of aliases for 'Poland', got the text 'Polska'"),
    ],
)
def test_names_that_would_be_found_everywhere_are_refused(unchecked, name, aliases, message):
    with pytest.raises(InterpToolkitError, match=message):
        Entity(name, aliases)
