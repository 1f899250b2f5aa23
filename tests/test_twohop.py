import gzip
import json
from collections import Counter

import pytest
import torch

from interp_toolkit import InterpToolkitError
from interp_toolkit.bridges import twohop as module
from interp_toolkit.bridges.names import Entity
from interp_toolkit.bridges.twohop import (
    TwoHop,
    answers_hops,
    balanced_sample,
    continuations,
    read_aliases,
    read_twohop,
)
from interp_toolkit.chat import prompt_ids, stop_ids
from interp_toolkit.errors import FileFormatError

COMPOSED = dict(
    type="capital->country->currency",
    e1="Warsaw",
    e2="Poland",
    e3="złoty",
    e2_aliases=["Polska"],
    e3_aliases=["PLN"],
    hop1_prompt="Warsaw is the capital of",
    hop2_prompt="The currency of Poland is the",
    twohop_prompt="The currency of the country whose capital is Warsaw is the",
)
MQUAKE = dict(
    bridge="Stephen King",
    answer="Maine",
    hop1_phrase="the author of Misery",
    hop2_cloze="The state that Stephen King lives in is",
    twohop_cloze="The state that the author of Misery lives in is",
)
PROMPTS = ["Tell me about rivers.", "fox", "Tell me about Poland.", "a dog jumps over the lazy fox", "Tell me", "fox"]


def _write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def _row(number, type="a->b->c", bridge="Poland", kind="country", **clozes):
    result = dict(hop1=f"one {number}", hop2=f"two {number}", twohop=f"both {number}") | clozes
    return TwoHop(number, type, Entity(bridge, kind=kind), Entity("zloty"), "", **result)


def test_both_kinds_of_file(tmp_path):
    (row,) = read_twohop(_write(tmp_path / "a.jsonl.gz", [COMPOSED]))
    assert (row.id, row.type, row.subject) == (0, "capital->country->currency", "Warsaw")
    assert (row.bridge.name, row.bridge.aliases) == ("Poland", ("Polska",))
    assert row.answer.named_in("the Polish zloty")
    assert (row.hop1, row.hop2, row.twohop) == tuple(COMPOSED[f"{hop}_prompt"] for hop in ("hop1", "hop2", "twohop"))
    (row,) = read_twohop(_write(tmp_path / "b.jsonl", [MQUAKE]), {"stephen king": ["Richard Bachman"]})
    assert row.bridge.aliases == ("Richard Bachman",)
    assert (row.hop1, row.twohop) == ("The author of Misery is", MQUAKE["twohop_cloze"])
    assert row.type == "author->The state that _ lives in is"
    assert row.subject == ""


def test_kinds_with_few_bridges_are_taken_together(tmp_path):
    rows = [COMPOSED | dict(e2=f"Country {i % 5}") for i in range(9)]
    rows += [COMPOSED | dict(e2=f"Company {i}", type="x->company->y") for i in range(4)]
    read = read_twohop(_write(tmp_path / "a.jsonl", rows))
    assert Counter(row.bridge.kind for row in read) == {"country": 9, "other": 4}
    assert {row.type for row in read[9:]} == {"x->company->y"}


def test_aliases_are_those_of_the_first_of_a_name(tmp_path):
    rows = [dict(label="London", aliases=["London, UK"]), dict(label="london", aliases=["London ON"])]
    assert read_aliases(_write(tmp_path / "a.jsonl", rows)) == {"london": ("London, UK",)}


def test_codes_that_are_words_too_are_no_aliases(tmp_path):
    codes = ["in", "IN", "no", "en", "jpn", "W"]
    names = ["US", "UK", "USA", "U.S.", "Boz", "Łódź"]
    rows = [dict(label="x", aliases=[*codes, *names])]
    assert read_aliases(_write(tmp_path / "a.jsonl", rows)) == {"x": tuple(names)}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({key: value for key, value in COMPOSED.items() if key != "e2"}, r"line 2: expected a row .*KeyError\('e2'\)"),
        (COMPOSED | dict(type="capital"), "line 2: expected a row of two-hop questions"),
        (COMPOSED | dict(e2_aliases=[" "]), "line 2: .*alias 0 of 'Poland' is empty"),
        ([], "line 2: expected a row of two-hop questions"),
    ],
)
def test_a_damaged_row_is_named_by_its_line(tmp_path, row, message):
    with pytest.raises(FileFormatError, match=message):
        read_twohop(_write(tmp_path / "a.jsonl", [COMPOSED, row]))


def test_a_file_that_is_not_there_says_where_the_data_comes_from(tmp_path):
    with pytest.raises(FileFormatError, match=r"there is no file .*none\.jsonl.*github\.com/princeton-nlp/MQuAKE"):
        read_twohop(tmp_path / "none.jsonl")
    (tmp_path / "a.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(FileFormatError, match="is damaged"):
        read_twohop(tmp_path / "a.jsonl.gz")


def test_a_sample_is_balanced_by_type_and_bridge():
    rows = [_row(i, "common", f"bridge {i % 10}") for i in range(200)]
    rows += [_row(200 + i, "rare", "the same") for i in range(5)]
    sample = balanced_sample(rows, 10)
    assert Counter(row.type for row in sample) == {"common": 5, "rare": 5}
    assert len({row.bridge.name for row in sample if row.type == "common"}) == 5
    whole = balanced_sample(rows, 1000)
    assert whole[:10] == sample
    assert sorted(row.id for row in whole) == list(range(205))
    assert set(Counter(row.bridge.name for row in whole[:15] if row.type == "common").values()) == {1}
    assert balanced_sample(rows, 10, seed=1) != sample
    assert len(balanced_sample([_row(0), _row(1, twohop="both 0")], 5)) == 1


def test_continuations_are_those_of_hugging_faces_own_decoding(tiny, tiny_hf, architecture, backend):
    model, truth = tiny(architecture, backend), tiny_hf(architecture)
    stops = set(stop_ids(model))
    for chat in (False, True):
        expected = []
        for row in prompt_ids(model.tokenizer, PROMPTS, chat):
            ids = list(row)
            for _ in range(6):
                token = truth(torch.tensor([ids])).logits[0, -1].argmax().item()
                if token in stops:
                    break
                ids.append(token)
            expected.append(model.tokenizer.decode(ids[len(row) :]).strip())
        assert continuations(model, PROMPTS, chat=chat, max_new_tokens=6) == expected


def test_an_empty_prompt_has_no_continuation(tiny):
    with pytest.raises(InterpToolkitError, match="prompt 1 is empty"):
        continuations(tiny(), ["a", " "])


# What each cloze is continued with: hop 1, hop 2, the question.
VERDICTS = {
    ("Poland. It is", "zloty, the", "the zloty"): ("kept", True, True, True),
    ("Polandball", "zloty", "zloty"): ("shortcut", False, True, True),
    ("", "", "zloty"): ("shortcut", False, False, True),
    ("Poland", "euro", "zloty"): ("hop 2 wrong", True, False, True),
    ("Poland", "zloty", ""): ("two-hop wrong", True, True, False),
    ("Poland", "zloty", "euro\n\nThe zloty"): ("two-hop wrong", True, True, False),
}


def test_verdicts(tiny, monkeypatch):
    rows = [_row(i) for i in range(len(VERDICTS))]
    result = {
        cloze: text
        for row, texts in zip(rows, VERDICTS)
        for cloze, text in zip((row.hop1, row.hop2, row.twohop), texts)
    }
    monkeypatch.setattr(module, "continuations", lambda model, prompts, progress: [result[x] for x in prompts])
    actual = answers_hops(tiny(), rows)
    assert [tuple(x) for x in actual[["verdict", "hop1", "hop2", "twohop"]].to_numpy()] == list(VERDICTS.values())
    assert actual.hop1_answer.tolist() == [texts[0] for texts in VERDICTS]
    assert set(actual.reason) == {""}


def test_a_cloze_that_several_rows_share_is_asked_once_and_an_empty_one_fails_alone(tiny, monkeypatch):
    asked = []

    def tell(model, prompts, progress):
        asked.extend(prompts)
        return ["Poland"] * len(prompts)

    monkeypatch.setattr(module, "continuations", tell)
    rows = [_row(0), _row(1, hop1="one 0"), _row(2, hop1=" ", twohop="")]
    actual = answers_hops(tiny(), rows)
    assert sorted(asked) == ["both 0", "both 1", "one 0", "two 0", "two 1"]
    assert actual.verdict.tolist() == ["two-hop wrong", "two-hop wrong", "failed"]
    assert actual.reason[2] == "the cloze of hop1 and twohop is empty"
    assert answers_hops(tiny(), []).empty


def test_what_the_embedded_model_knows(smollm):
    clozes = dict(
        hop1="Kawasaki is a city in",
        hop2="The currency of Japan is the",
        twohop="The currency of the country where the city of Kawasaki is located is the",
    )
    known = TwoHop(0, "a->b->c", Entity("Japan"), Entity("yen"), "Kawasaki", **clozes)
    actual = answers_hops(smollm, [known, TwoHop(1, "a->b->c", Entity("Chad"), Entity("franc"), "Kawasaki", **clozes)])
    assert actual.verdict.tolist() == ["kept", "two-hop wrong"]
