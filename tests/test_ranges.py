"""Topics in many wordings, sources with one mean, and sites of a stack on their own."""

import pytest
import torch

from interp_toolkit import InterpToolkitError, Site, SiteStack, VectorLabelPairs, read_activations
from interp_toolkit.chat import prompt_ids
from interp_toolkit.pairs import reworded_topic_pairs, with_common_mean, with_sites_alone
from interp_toolkit.pairs.wordings import WORDINGS
from interp_toolkit.spans import Span, find_spans

TITLES = ["Poland", "rivers", "a fox", "history", "baseball"]
STACK = SiteStack([0, 2])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("chat", [True, False])
def test_topics_are_read_at_the_tokens_that_are_named(tiny, chat):
    model, wordings = tiny(), ["See {title} in the garden.", "{title}"]
    settings = dict(wordings=wordings, per_topic=2, plain_share=0.0 if chat else 1.0, splits=["train"] * 4 + ["val"])
    pairs = reworded_topic_pairs(model, TITLES, STACK, tokens=("title", "content", "last"), **settings)
    for i, title in enumerate(TITLES):
        rows = [k for k, (label,) in enumerate(pairs.labels) if label == title]
        assert {pairs.splits[k] for k in rows} == {"val" if i == 4 else "train"}
        expected = []
        for wording in wordings:
            (ids,) = prompt_ids(model.tokenizer, [wording.replace("{title}", title)], chat)
            texts = [model.tokenizer.decode(ids[: n + 1]) for n in range(len(ids))]
            ends = {next(n for n, text in enumerate(texts) if text.endswith(title)), len(ids) - 1}
            if wording.endswith("."):
                ends.add(max(n for n, text in enumerate(texts) if text.endswith("garden.")))
            whole = read_activations(model, [ids], STACK, "all").vectors
            expected += [whole[n] for n in sorted(ends)]
        actual = pairs.vectors[rows] + pairs.mean
        assert len(actual) == len(expected)
        assert all((actual - vector).norm(dim=1).min() < 1e-3 for vector in expected)
    assert torch.allclose(pairs.split("train").vectors.mean(0), torch.zeros(64), atol=1e-4)
    assert pairs.site == STACK


def test_wordings_are_drawn_by_seed(tiny):
    first, again, other = (reworded_topic_pairs(tiny(), TITLES, 2, seed=seed).vectors for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.allclose(first, other)
    assert len(WORDINGS) == len(set(WORDINGS)) >= 16
    assert all(wording.count("{title}") == 1 for wording in WORDINGS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(wordings=["no place"]), r"expected \{title\} in each wording, got 'no place'"),
        (dict(wordings=["{title}"], per_topic=2), "per_topic of 1 to 1, the number of wordings, got 2"),
        (dict(titles=["a", " "]), "topic 1 has an empty title"),
        (dict(labels=[["a"]]), "expected labels for each title, got 5 titles and 1 lists"),
        (dict(splits=["val"] * 5), "at least one of them 'train'"),
    ],
)
def test_what_makes_no_topics_is_refused(tiny, settings, message):
    with pytest.raises(InterpToolkitError, match=message):
        reworded_topic_pairs(tiny(), settings.pop("titles", TITLES), 2, **settings)


def _pairs(n, mean, site=STACK, seed=0):
    vectors = torch.randn(n, 64, generator=torch.Generator().manual_seed(seed))
    return VectorLabelPairs.from_tensors(vectors, [f"label {i}" for i in range(n)], site=site, mean=mean)


def test_sources_with_one_mean_are_joined_and_lose_nothing():
    sources = [_pairs(6, torch.full((64,), 3.0)), _pairs(4, torch.linspace(0, 1, 64), seed=1)]
    joined = VectorLabelPairs.concat(with_common_mean(sources))
    raw = torch.cat([source.vectors + source.mean for source in sources])
    assert torch.allclose(joined.vectors + joined.mean, raw, atol=1e-5)
    assert torch.allclose(joined.mean, (sources[0].mean + sources[1].mean) / 2)
    with pytest.raises(InterpToolkitError, match="got source 1 without a mean"):
        with_common_mean([sources[0], _pairs(3, None)])
    with pytest.raises(InterpToolkitError, match=r"got source 1 at blocks.1.* and source 0 at blocks.0"):
        with_common_mean([sources[0], _pairs(3, torch.ones(64), SiteStack([1, 2]))])


def test_a_share_of_the_vectors_keeps_one_site():
    pairs = _pairs(2000, torch.zeros(64))
    alone = with_sites_alone(pairs, 0.4, seed=3)
    parts, before = alone.vectors.view(-1, 2, 32), pairs.vectors.view(-1, 2, 32)
    zero = (parts == 0).all(2)
    assert not zero.all(1).any()
    assert abs(zero.any(1).float().mean() - 0.4) < 0.04
    assert abs(zero[:, 0].float().mean() - 0.2) < 0.04
    assert torch.equal(parts[~zero], before[~zero])
    assert torch.equal(with_sites_alone(pairs, 0.4, seed=3).vectors, alone.vectors)
    assert torch.equal(with_sites_alone(pairs, 0.0).vectors, pairs.vectors)
    with pytest.raises(InterpToolkitError, match=r"pairs of a stack of sites, got those of blocks\.2"):
        with_sites_alone(_pairs(3, None, Site.after(2)), 0.5)
    with pytest.raises(InterpToolkitError, match="a share between 0 and 1, got 1.5"):
        with_sites_alone(pairs, 1.5)


@pytest.mark.parametrize("text", ["We saw Café Zürich", "Café", " Café, and more", "é. Café é"])
def test_the_last_token_of_a_name_ends_its_last_character(tiny_tokenizer, text):
    ((span,), _) = find_spans(tiny_tokenizer, [text], "last", False)
    # A character of two bytes is two tokens of this tokenizer, whose offsets are both that character's.
    offsets = tiny_tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    end = text.index("Café") + len("Café")
    expected = max(i for i, (start, _) in enumerate(offsets) if start < end)
    assert span.end_of(tiny_tokenizer, "café") - span.content[0] == expected
    assert span.end_of(tiny_tokenizer, "Bistro") is None


@pytest.mark.parametrize("text", ["ab😀z and more", "ab😀 and z", "😀😀😀 a 😀"])
@pytest.mark.parametrize("subject", ["😀z", "b😀", "😀", "a"])
def test_characters_that_are_not_whole_yet_count_for_nothing(byte_tokenizer, text, subject):
    ids = list(text.encode())
    span = Span(0, text, ids, (0, len(ids)), frozenset())
    expected = len(text[: text.rfind(subject) + len(subject)].encode()) - 1 if subject in text else None
    assert span.end_of(byte_tokenizer, subject) == expected


def test_finding_a_name_decodes_a_long_text_a_few_times(tiny_tokenizer, monkeypatch):
    text = "word " * 3000 + "Poland" + " word" * 3000
    ((span,), _) = find_spans(tiny_tokenizer, [text], "last", False)
    decode, calls = tiny_tokenizer.decode, []
    monkeypatch.setattr(tiny_tokenizer, "decode", lambda *args, **kwargs: calls.append(1) or decode(*args, **kwargs))
    position = span.end_of(tiny_tokenizer, "Poland")
    assert len(calls) < 40
    assert decode(span.ids[: position + 1]).endswith("word Poland")
