"""The data that travels with the repository: readable, with the splits that it names, and with what it lacks named."""

import gzip
import json
import tomllib
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.data import DATA, KINDS, PASSAGES, PHRASES, TITLES, make, need, need_whole_corpus, passages
from benchmarks.data.kinds import kinds_of_titles
from benchmarks.data.languages import LANGUAGES
from interp_toolkit.bridges import read_twohop
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.pairs import read_topics
from interp_toolkit.sae import read_passages

ROOT = Path(__file__).parent.parent


def _rows(file):
    with gzip.open(DATA / file, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def test_no_title_is_in_two_splits():
    topics = read_topics(DATA / TITLES, labels=1)
    assert Counter(topics.splits) == {"train": 42_874, "val": 4_664}
    assert len(set(topics.titles)) == len(topics.titles)


def test_descriptions_have_a_source_that_the_notice_names():
    sources = {x["source"] for row in _rows(TITLES) for x in row.get("descriptions", [])}
    assert sources
    assert all(source.startswith(make.DESCRIPTION_SOURCES) for source in sources)
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for name in ("WordNet 3.0", "openstax/", "wikidata", "CIA World Factbook", "Open Database License", "tldr-pages"):
        assert name in notice


def test_no_passage_is_in_two_splits():
    train, held_out = (read_passages(DATA / PASSAGES, split) for split in ("train", "eval"))
    assert (len(train), len(held_out)) == (make.SAMPLE["train"], make.SAMPLE["eval"])
    assert not set(train["text"]) & set(held_out["text"])
    assert pd.concat([train, held_out])["source"].str.startswith(make.PASSAGE_SOURCES).all()


def test_questions_and_facts_are_as_many_as_the_page_says():
    assert len(read_twohop(DATA / "twohop" / "composed_twohop.jsonl.gz")) == 5_841
    assert len(read_twohop(DATA / "twohop" / "mquake_2hop_creme.jsonl.gz")) == 1_000
    assert len(_rows("twohop/country_facts.jsonl.gz")) == 196
    assert len(_rows(make.NAMES)) == 14_254
    relations = json.loads(gzip.decompress((DATA / make.RELATIONS).read_bytes()))
    assert len(relations) == 40
    assert sum(len(relation["samples"]) for relation in relations.values()) == 10_876


def test_every_file_is_on_the_page_and_all_are_small():
    page = (DATA / "README.md").read_text(encoding="utf-8")
    files = [path for path in DATA.rglob("*.gz")]
    assert {f"`{path.relative_to(DATA)}`" in page for path in files} == {True}
    assert sum(path.stat().st_size for path in files) < 2_000_000


def test_the_wheel_holds_the_package_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["interp_toolkit"]


def _translations(folder, messages):
    """What Django's package holds: a file of French messages."""
    mofile, catalogs = pytest.importorskip("babel.messages.mofile"), pytest.importorskip("babel.messages.catalog")
    catalog = catalogs.Catalog(locale="fr")
    for message, french in messages.items():
        catalog.add(message, french)
    path = folder / "conf" / "locale" / "fr" / "LC_MESSAGES" / "django.mo"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        mofile.write_mo(file, catalog)
    return folder


def test_making_the_files_again_gives_the_same_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "SAMPLE", {"train": 5, "eval": 2})
    django = _translations(
        tmp_path / "django",
        {
            "This field is required.": "Ce champ est obligatoire.",
            "Enter a number from %(low)s to %(high)s.": "Saisissez un nombre de %(low)s à %(high)s.",
            "Log out": "Déconnexion",
        },
    )
    full = tmp_path / "full"
    for file in (TITLES, make.NAMES, PASSAGES, make.RELATIONS, *make.COPIED):
        (full / file).parent.mkdir(parents=True, exist_ok=True)
        if file == make.RELATIONS:
            (full / file).write_bytes(gzip.compress(b'{"r": {"samples": []}}'))
            continue
        rows = _rows(file)
        if file == TITLES:
            left_out = dict(description="a person", source="Pantheon 1.0", confidence="high")
            rows = [row | dict(descriptions=[*row.get("descriptions", []), left_out]) for row in rows[:50]]
        if file == PASSAGES:
            rows.append(rows[0] | dict(source="MASC/email", text="not passed on"))
        (full / file).write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    nouns = [dict(lemmas=["book"], lex="communication", gloss="a work", first_sense=True)]
    (full / make.NOUNS).write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in nouns).encode()))
    made = [tmp_path / "one", tmp_path / "two"]
    for folder in made:
        make.make(full, django, folder)
    files = sorted(path.relative_to(made[0]) for path in made[0].rglob("*.gz"))
    assert {str(file) for file in files} == {TITLES, KINDS, PHRASES, make.NAMES, PASSAGES, make.RELATIONS, *make.COPIED}
    assert all((made[0] / file).read_bytes() == (made[1] / file).read_bytes() for file in files)
    assert gzip.decompress((made[0] / TITLES).read_bytes()).decode().splitlines() == [
        json.dumps(row, ensure_ascii=False) for row in _rows(TITLES)[:50]
    ]
    assert "not passed on" not in gzip.decompress((made[0] / PASSAGES).read_bytes()).decode()
    lines = gzip.decompress((made[0] / PHRASES).read_bytes()).decode().splitlines()
    # Neither what is no phrase nor a message with a place for a value; each in both languages, on one side.
    assert [(row["language"], row["text"]) for row in map(json.loads, lines)] == [
        ("English", "This field is required."),
        ("French", "Ce champ est obligatoire."),
    ]
    assert len({json.loads(line)["split"] for line in lines}) == 1


def test_a_kind_is_that_of_the_very_sense():
    nouns = [
        dict(lemmas=["mercury"], lex="substance", gloss="a heavy metal; liquid", first_sense=True),
        dict(lemmas=["mercury"], lex="object", gloss="the smallest planet", first_sense=False),
        dict(lemmas=["singer"], lex="person", gloss="a person who sings", first_sense=True),
        dict(lemmas=["country"], lex="group", gloss="a politically organized body", first_sense=True),
        dict(lemmas=["instrument"], lex="artifact", gloss="a device", first_sense=True),
    ]
    wordnet, wikidata = "WordNet 3.0", "wikidata (villmow FB15k-237)"

    def kind(title, *descriptions):
        row = dict(title=title, split="val", descriptions=[dict(description=x, source=y) for x, y in descriptions])
        return [row["kind"] for row in kinds_of_titles([row], nouns)]

    assert kind("Mercury (element)", ("a heavy metal", wordnet)) == ["substance"]
    # Of no kind that is asked about.
    assert kind("Mercury", ("the smallest planet", wordnet)) == []
    assert kind("Prince", ("American singer and actor", wikidata)) == ["person"]
    assert kind("France", ("country in Western Europe", wikidata)) == ["place"]
    assert kind("Gong", ("percussion instrument", wikidata)) == []
    assert kind("Prince", ("American singer", wikidata), ("country", wikidata)) == []
    assert kind("Nothing") == []


def test_kinds_and_phrases_have_the_splits_of_their_files():
    splits = dict(zip((row["title"] for row in _rows(TITLES)), (row["split"] for row in _rows(TITLES))))
    kinds = _rows(KINDS)
    assert all(splits[row["title"]] == row["split"] for row in kinds)
    assert Counter(row["kind"] for row in kinds).most_common(2) == [("person", 3_191), ("place", 1_603)]
    phrases = _rows(PHRASES)
    assert {row["language"] for row in phrases} == set(LANGUAGES.values())
    assert len({(row["language"], row["text"]) for row in phrases}) > 0.99 * len(phrases)


def test_a_missing_file_says_how_to_get_it(tmp_path):
    need(DATA, TITLES, PASSAGES)
    with pytest.raises(
        InterpToolkitError, match=r"expected corpus/passages\.jsonl\.gz.*benchmarks\.data\.passages FOLDER"
    ):
        need(tmp_path, PASSAGES)
    with pytest.raises(InterpToolkitError, match=r"expected topics/topics\.jsonl\.gz.*leave --data away"):
        need(tmp_path, TITLES)


def test_a_whole_corpus_is_more_than_the_sample(tmp_path):
    with pytest.raises(InterpToolkitError, match=r"is the sample for trials \(--limit N\)"):
        need_whole_corpus(DATA)
    (tmp_path / "corpus").mkdir()
    (tmp_path / PASSAGES).write_bytes(gzip.compress(b'{"text": "my own", "split": "train"}\n'))
    need_whole_corpus(tmp_path)


def test_passages_of_the_hub_are_paragraphs_with_splits(tmp_path, monkeypatch):
    def download(repository, file, repo_type):
        assert (repository, repo_type) == ("Salesforce/wikitext", "dataset")
        path = tmp_path / file.replace("/", "-")
        pd.DataFrame(dict(text=["", " = Title = ", f" {file} " + "word " * 60])).to_parquet(path)
        return str(path)

    monkeypatch.setattr(passages, "hf_hub_download", download)
    assert passages.fetch(tmp_path / "out") == 2
    assert read_passages(tmp_path / "out" / PASSAGES, "train")["text"][0].startswith("wikitext-2-raw-v1/train")
    assert read_passages(tmp_path / "out" / PASSAGES, "eval")["source"].tolist() == ["WikiText-2"]
    need(tmp_path / "out", TITLES, "twohop/composed_twohop.jsonl.gz")
    need_whole_corpus(tmp_path / "out")
