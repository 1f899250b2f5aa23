"""Questions of the benchmark of any token: which descriptions are right, and where features and facts are looked up."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from benchmarks.tokens import facts as facts_of
from benchmarks.tokens.facts import Fact, facts_rows, known_facts
from benchmarks.tokens.features import peak_words
from benchmarks.tokens.questions import Questions, of_tokens
from benchmarks.tokens.reading import TextToken
from interp_toolkit import Adapter, Site, SiteStack, SoftPrompt
from interp_toolkit.bridges import Entity
from interp_toolkit.contract import Contract
from interp_toolkit.models import model_facts
from interp_toolkit.reading_place import ReadingPlace


def test_a_description_is_right_that_names_one_of_the_words():
    questions = of_tokens([TextToken("Tower", ()), TextToken("Paris", ())], torch.zeros(2, 4))
    right = questions.right(None, [["the Eiffel tower", "towers"], ["Paris", "France"]])
    assert right.tolist() == [True, False, True, False]
    several = Questions("direction", torch.zeros(1, 4), words=[("bee", "bees")], site=Site.after(1))
    assert several.right(None, [["Bees and honey", "honey", "a bee"]]).tolist() == [True, False, True]
    assert len(questions.first(1).words) == 1
    marked = of_tokens([TextToken(str(i), ()) for i in range(9)], torch.arange(9.0)[:, None]).shuffled(0)
    assert [word for (word,) in marked.words] == [str(int(x)) for x in marked.raw]
    assert marked.raw.flatten().tolist() != list(range(9))


def test_a_description_is_right_that_names_the_title_first_among_all():
    context = SimpleNamespace(
        answers=lambda titles: titles,
        ranks=lambda texts, answers: torch.tensor([[1 if row[0] == x else 2] for row, x in zip(texts, answers)]),
    )
    questions = Questions("last", torch.zeros(2, 4), titles=["Poland", "Bees"])
    assert questions.right(context, [["Poland", "Bees"], ["Poland", "Bees"]]).tolist() == [True, False, False, True]


def test_vectors_are_taken_as_the_adapter_takes_those_of_their_place():
    mean = torch.linspace(0, 1, 4)
    places = (ReadingPlace(Site.after(1), torch.ones(2)),)
    contract = Contract("m", 2, SiteStack([0, 1]), None, mean=mean, more=places)
    raw = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    questions = Questions("text", raw, words=[("a",)])
    stack, alone = contract.reading_places
    assert torch.equal(questions.values(contract, stack), raw - mean)
    assert questions.values(contract, alone).tolist() == [[0.0, 0.0, 2.0, 3.0]]
    direction = Questions("direction", raw[:, :2], words=[("a",)], site=Site.after(1))
    assert direction.values(contract, alone).tolist() == [[0.0, 0.0, 1.0, 2.0]]


def test_the_word_of_a_peak_is_the_whole_word_that_its_token_is_part_of():
    tokens = ("The", " E", "iffel", " Tower", " is", " tall", ".")
    peaks = [dict(tokens=tokens, peak=peak) for peak in range(len(tokens))]
    # Neither function words nor punctuation are content.
    assert peak_words(pd.DataFrame(peaks)) == ["Eiffel", "Eiffel", "Tower", "tall"]
    assert peak_words(pd.DataFrame([dict(tokens=("a", "b", "c d"), peak=2)])) == ["abc"]


class Named:
    """A context in which every description is the same text."""

    limit = None

    def __init__(self, model, text):
        self.model, self.text, self.progress = model, text, False

    def describe_greedily(self, adapter, vectors):
        return [self.text] * len(vectors)


def _adapter(model, tiny_prompt: SoftPrompt, place):
    adapter = Adapter.create("low_rank", 32, sites=len(place.sites), rank=2).requires_grad_(False)
    adapter.contract = Contract.from_facts(model_facts(model), place, tiny_prompt, None, True)
    return adapter


def test_facts_are_read_by_descriptions_and_by_the_lens(tiny, tiny_prompt, monkeypatch):
    model = tiny()
    facts = [
        Fact("capital", "bees", Entity("foxes", kind="capital"), "The bees are"),
        Fact("capital", "owls", Entity("foxes", kind="capital"), "The owls are"),
        Fact("capital", "cows", Entity("hens", kind="capital"), "The cows are"),
        Fact("colour", "cats", Entity("dogs", kind="colour"), "The cats are"),
    ]
    monkeypatch.setattr(facts_of, "logit_lens", lambda model, raw, k: [["fox", "f", "x"][:k]] * len(raw))
    monkeypatch.setattr(facts_of, "_first_token", lambda tokenizer, answer: answer[0])
    rows = facts_rows(Named(model, "Foxes and hens"), _adapter(model, tiny_prompt, Site.after(1)), facts)
    by = {row["by"]: row for row in rows}
    assert by["description"]["value"] == 0.75
    # Another's answer: hens for the first two, foxes for the third; the colour is alone, and takes the first of all.
    assert by["another's description"]["value"] == 0.75
    assert by["logit lens, first 1"]["value"] == 0.0
    assert by["logit lens, first 10"]["value"] == 0.5
    assert by["description less logit lens, first 10"]["value"] == 0.25
    assert by["description"]["clusters"] == 2
    stack = facts_rows(Named(model, "Dogs"), _adapter(model, tiny_prompt, SiteStack([0, 1])), facts)
    assert [row["by"] for row in stack] == [
        "description",
        "another's description",
        "description less another's description",
    ]
    assert stack[0]["value"] == 0.25


def test_a_fact_is_known_that_the_model_completes_and_the_prompt_does_not_name(tiny, tmp_path, monkeypatch):
    (tmp_path / "twohop").mkdir()
    relation = dict(
        prompt_templates=["{} is in"],
        properties=dict(relation_type="factual"),
        samples=[dict(subject=x, object=y) for x, y in [("Paris", "France"), ("Rome", "Italy"), ("Oman", "Oman")]],
    )
    other = relation | dict(properties=dict(relation_type="bias"))
    path = tmp_path / "twohop" / "lre_relations.json.gz"
    path.write_bytes(_gzipped(dict(city=relation, bias=other)))
    answers = {"Paris is in": " France,\nand", "Rome is in": "\nItaly", "Oman is in": "Oman"}
    monkeypatch.setattr(facts_of, "continuations", lambda model, prompts, progress: [answers[x] for x in prompts])
    facts = known_facts(Named(tiny(), ""), tmp_path)
    assert [(fact.relation, fact.subject, fact.answer.name) for fact in facts] == [("city", "Paris", "France")]
    assert np.isin([fact.prompt for fact in facts], list(answers)).all()


def _gzipped(value):
    import gzip
    import json

    return gzip.compress(json.dumps(value).encode())
