"""Labels from contexts: distinctive words, a server on this machine, a local model; and what is kept."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
import torch

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sae.asking import Answer, ask_model, ask_server
from interp_toolkit.sae.distinctive import Background, log_odds, read_items, readable, token_spans
from interp_toolkit.sae.labellers import (
    INACTIVE,
    Labelled,
    Labeller,
    label_features,
    llm_labeller,
    tidy_label,
    word_labeller,
)

NEUTRAL = [
    "The man went to the market and bought some bread, and the woman stayed at home with the children.",
    "It was a cold day in the city, and the people in the street walked quickly to their work.",
    "She said that she had never seen such a thing before, and that the river was very wide.",
] * 30


def contexts(*texts, on=()):
    """TopExamples of one feature: active on these words, a token a word with the space before it."""
    rows = []
    for text in texts:
        tokens = tuple(f" {word}" if i else word for i, word in enumerate(text.split(" ")))
        actual = tuple(2.0 if token.strip().strip(",.") in on else 0.0 for token in tokens)
        rows.append(dict(text=text, tokens=tokens, activations=actual))
    return pd.DataFrame(rows, columns=["text", "tokens", "activations"])


RIVERS = contexts(
    "the boat went down the Danube to the harbour of the town",
    "we crossed the Rhine by boat, and the harbour was near",
    "a boat on the Danube in the old harbour",
    "the Danube and the Rhine are where the boat goes to the harbour",
    on=("Danube", "Rhine"),
)


def test_equally_frequent_words_are_not_distinctive_and_more_frequent_ones_are():
    outside = {"the": 1000, "a": 500, "dog": 5, "cat": 5, "so": 490}
    z = log_odds({"the": 50, "a": 25, "dog": 20, "cat": 1, "yak": 10}, outside)
    assert abs(z["the"]) < 2
    assert z["dog"] > z["yak"] > 3  # the same word unseen outside is no better than one that is known to be rare
    assert z["dog"] > z["cat"] > 0
    assert log_odds({"the": 1, "dog": 40}, outside)["the"] < 0
    # More of the same is more certain.
    once, often = ({"dog": 4 * k, "the": 36 * k} for k in (1, 5))
    assert log_odds(often, outside)["dog"] > log_odds(once, outside)["dog"]


def test_tokens_are_found_with_and_without_their_space_and_around_broken_characters():
    text = "An elephant, caf\u00e9\nand tea"
    whole = ["An", " ele", "phant", ",", " caf", "\u00e9", "\n", "and", " tea"]
    expected = ["An", "ele", "phant", ",", "caf", "\u00e9", "\n", "and", "tea"]
    for tokens in (whole, [token.strip(" ") for token in whole]):
        assert [text[start:end] for start, end in token_spans(text, tokens)] == expected
    broken = [*whole[:5], "\ufffd", "\ufffd", *whole[6:]]
    assert [text[start:end] for start, end in token_spans(text, broken)] == [*expected[:5], "", "", *expected[6:]]
    items = read_items(text, whole, [0, 0.5, 2, 1, 0, 0, 3, 0, 0])
    assert [(item.text, item.activation) for item in items] == [
        ("An", 0.0),
        ("elephant", 2.0),
        (",", 1.0),
        ("caf\u00e9", 0.0),
        ("\n", 3.0),
        ("and", 0.0),
        ("tea", 0.0),
    ]


def test_words_that_are_active_and_words_around_them_make_the_labels():
    (actual,) = word_labeller(Background.from_texts(NEUTRAL)).label([RIVERS])
    words, around, *_ = actual.labels
    assert words == "Danube, Rhine"
    assert around.startswith("Danube, Rhine, in texts about ")
    assert "boat" in around
    assert "harbour" in around
    assert not actual.reason
    # What makes a word distinctive is the rest: where everyone speaks of boats, they say nothing.
    boats = Background.from_texts([*NEUTRAL, *["the boat and the harbour"] * 300])
    assert "boat" not in " ".join(word_labeller(boats).label([RIVERS])[0].labels)


def test_a_phrase_that_contexts_share_is_named():
    own = contexts("he sat in front of me", "a tree in front of her", "the car in front of us", on=("front",))
    (actual,) = word_labeller(Background.from_texts(NEUTRAL)).label([own])
    assert actual.labels[0] == "front"
    assert actual.labels[-1] in ("the phrase in front", "the phrase in front of", "the phrase front of")


def test_marks_have_names_and_no_label_holds_a_double_quote():
    text = 'red, blue, and "green"'
    tokens = ("red", ",", " blue", ",", " and", ' "', "green", '"')
    for on, name in ((",", "comma"), ('"', "quotation mark")):
        own = pd.DataFrame(
            [dict(text=text, tokens=tokens, activations=tuple(float(token.strip() == on) for token in tokens))]
        )
        (actual,) = word_labeller(Background.from_texts(NEUTRAL)).label([own])
        assert actual.labels[0] == name
        assert not any('"' in label for label in actual.labels)
    assert [readable(x) for x in ("\n\n", ".", "x", "12")] == ["line break", "full stop", "x", "12"]


class _Counting:
    """Labels every feature by its number of calls, and fails where it should."""

    def __init__(self, fail=()):
        self.calls, self.fail = [], list(fail)

    def __call__(self, batch):
        self.calls.append(len(batch))
        return [Labelled((), "no luck") if own["text"].iloc[0] in self.fail else Labelled(("x",)) for own in batch]


def _numbered(feature):
    return contexts(*([f"w{feature}"] if feature != 3 else []), on=(f"w{feature}",))


def test_what_is_labelled_is_kept_and_what_failed_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr("interp_toolkit.sae.labellers._SHARD", 2)
    label = _Counting(fail=["w1"])
    labeller = Labeller("counting", label)
    actual = label_features(labeller, _numbered, [0, 1, 2, 3, 4], tmp_path)
    assert actual.labels.by_feature() == {0: ("x",), 2: ("x",), 4: ("x",)}
    assert set(actual.labels.table["explainer"]) == {"counting"}
    assert actual.failed.values.tolist() == [[1, "no luck"], [3, INACTIVE]]
    assert label.calls == [2, 1, 1]
    label.fail = []
    again = label_features(labeller, _numbered, [0, 1, 2, 3, 4], tmp_path)
    assert label.calls == [2, 1, 1, 1]
    assert again.labels.features == (0, 1, 2, 4)
    assert again.failed.values.tolist() == [[3, INACTIVE]]
    # A damaged file is made anew; another labeller shares nothing.
    for path in (tmp_path / "labels").glob("*.json"):
        path.write_text("{")
    assert label_features(labeller, _numbered, [0, 1, 2, 3, 4], tmp_path).labels.features == (0, 1, 2, 4)
    assert label.calls[4:] == [2, 1, 1]
    other = _Counting()
    label_features(Labeller("other", other), _numbered, [0, 1], tmp_path)
    assert other.calls == [2]


@pytest.mark.parametrize("change", [dict(question="New: {passages}"), dict(shown=2), dict(tokens=3)])
def test_what_is_asked_otherwise_is_asked_anew(tmp_path, tiny, monkeypatch, change):
    asked = []

    def answers(model, prompts, *, max_new_tokens, chat=None):
        asked.append(len(prompts))
        return ["rivers"] * len(prompts)

    monkeypatch.setattr("interp_toolkit.sae.asking.plain_answers", answers)

    def labels(tokens=48, **settings):
        return llm_labeller(ask_model(tiny(), max_new_tokens=tokens), "m", **settings)

    for _ in range(2):
        label_features(labels(), _numbered, [0, 1], tmp_path)
    assert asked == [2]
    for _ in range(2):
        label_features(labels(**change), _numbered, [0, 1], tmp_path)
    assert asked == [2, 2]


def test_labels_by_another_model_or_other_text_at_large_are_made_anew(tmp_path, tiny):
    one = ask_server("http://localhost:1/v1", "m")
    others = [
        ask_server("http://localhost:2/v1", "m"),
        ask_server("http://localhost:1/v1", "n"),
        ask_server("http://localhost:1/v1", "m", temperature=1.0),
        ask_server("http://localhost:1/v1", "m", seed=1),
        ask_server("http://localhost:1/v1", "m", max_tokens=3),
    ]
    assert len({llm_labeller(ask, "m").key() for ask in [one, *others]}) == 6
    with_key = ask_server("http://localhost:1/v1", "m", api_key="k")
    assert llm_labeller(one, "m").key() == llm_labeller(with_key, "m").key()
    backgrounds = [Background.from_texts(NEUTRAL), Background.from_texts(NEUTRAL[:3])]
    assert len({word_labeller(background).key() for background in backgrounds}) == 2
    weight = next(tiny().parameters())
    before = llm_labeller(ask_model(tiny()), "m").key()
    value = weight.flatten()[0].item()
    with torch.no_grad():
        weight.view(-1)[0] += 1
        assert llm_labeller(ask_model(tiny()), "m").key() != before
        weight.view(-1)[0] = value


def test_other_contexts_are_labelled_anew(tmp_path):
    label = _Counting()
    label_features(Labeller("a", label), _numbered, [0], tmp_path)
    label_features(Labeller("a", label), lambda feature: contexts("other words", on=("other",)), [0], tmp_path)
    label_features(Labeller("a", label), _numbered, [0], tmp_path)
    assert label.calls == [1, 1]


def test_what_cannot_be_labelled():
    with pytest.raises(InterpToolkitError, match="each feature once"):
        label_features(Labeller("a", _Counting()), _numbered, [0, 0])
    with pytest.raises(
        InterpToolkitError, match="none of 1 features got a label; the first: the feature is never active"
    ):
        label_features(Labeller("a", _Counting()), _numbered, [3])
    with pytest.raises(InterpToolkitError, match="labeller 'short' for each of 2 features, got 1"):
        label_features(Labeller("short", lambda batch: [Labelled(("x",))]), _numbered, [0, 1])
    with pytest.raises(InterpToolkitError, match=r"a question with \{passages\} in it"):
        llm_labeller(lambda prompts: [], "x", question="What?")


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ('"Names of rivers."', "Names of rivers"),
        ("Label: Names of rivers\nThey are all rivers.", "Names of rivers"),
        ("\n**Names  of rivers**", "Names of rivers"),
        ('the word "river"', "the word 'river"),
        ("...\n", ""),
    ],
)
def test_an_answer_is_brought_to_a_label(answer, label):
    assert tidy_label(answer) == label


def test_a_model_is_shown_the_active_words():
    asked = []

    def ask(prompts):
        asked.extend(prompts)
        return [Answer("Rivers."), Answer("", "busy")]

    own = pd.DataFrame(
        [
            dict(
                text="The ele\nphants {x}",
                tokens=("The", " ele", "\n", "phants", " {x}"),
                activations=(0, 2, 0, 1, 0.9),
            )
        ]
    )
    first, second = llm_labeller(ask, "m", shown=3).label([RIVERS, own])
    assert (first, second) == (Labelled(("Rivers",)), Labelled((), "busy"))
    assert "1. the boat went down the «Danube» to the harbour of the town\n2. we crossed the «Rhine» by" in asked[0]
    assert "4. " not in asked[0]
    assert "1. The «ele» «phants» {x}" in asked[1]


class _Server:
    """A chat server on this machine, which answers by a script: a status and a body for each request."""

    def __init__(self):
        self.seen, self.script, self.headers, self.hang = [], {}, [], set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                prompt = body["messages"][0]["content"]
                outer.seen.append((self.path, body))
                outer.headers.append(self.headers.get("authorization"))
                if prompt in outer.hang:
                    time.sleep(0.5)
                left = outer.script.get(prompt, [])
                status, answer, *more = left.pop(0) if left else (200, _chat(f"answer to {prompt}"))
                result = answer.encode()
                self.send_response(status)
                for name, value in more:
                    self.send_header(name, value)
                self.send_header("content-length", str(len(result)))
                self.end_headers()
                self.wfile.write(result)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1/"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


def _chat(text):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})


@pytest.fixture
def server():
    pytest.importorskip("httpx")
    made = _Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def test_a_server_is_asked_in_its_protocol_and_answers_come_in_order(server):
    ask = ask_server(server.url, "m", api_key="k", concurrency=3, max_tokens=9, seed=5)
    prompts = [f"p{i}" for i in range(12)]
    assert ask(prompts) == [Answer(f"answer to {prompt}") for prompt in prompts]
    path, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": body["messages"][0]["content"]}],
        "max_tokens": 9,
        "temperature": 0.0,
        "seed": 5,
    }
    assert set(server.headers) == {"Bearer k"}
    assert ask([]) == []


def test_a_busy_server_is_asked_again_and_a_bad_prompt_has_its_reason(server):
    server.script = {
        "busy": [(503, "later"), (429, "slow down", ("retry-after", "0")), (200, _chat(" fine "))],
        "dead": [(500, "broken")] * 3,
        "bad": [(400, "too long")],
        "odd": [(200, "<html>")],
        "mute": [(200, _chat(None))],
    }
    result = ask_server(server.url, "m", retries=2, wait=0.001)(["busy", "dead", "bad", "odd", "mute", "good"])
    assert result == [
        Answer("fine"),
        Answer("", "the server said 500: broken (asked 3 times)"),
        Answer("", "the server said 400: too long"),
        Answer("", "the server's answer is no chat completion: <html>"),
        Answer("", "the model said nothing"),
        Answer("answer to good"),
    ]
    assert len(server.seen) == 3 + 3 + 4


def test_a_server_that_refuses_or_is_not_there_ends_the_asking(server):
    server.script = {"p": [(401, "wrong key")]}
    with pytest.raises(InterpToolkitError, match="the server said 401: wrong key; check the address .* the model 'm'"):
        ask_server(server.url, "m")(["p"])
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(InterpToolkitError, match="cannot reach http://127.0.0.1.*is the server running"):
        ask_server(server.url, "m", retries=1, wait=0.001)(["p"])


def test_a_key_is_in_no_error(server):
    secret = "sk-very-secret"
    server.script = {"p": [(401, f"incorrect key: {secret}")], "q": [(400, f"no credit for {secret}")]}
    ask = ask_server(server.url, "m", api_key=secret)
    with pytest.raises(InterpToolkitError, match=r"the server said 401: incorrect key: \*\*\*;"):
        ask(["p"])
    assert ask(["q"]) == [Answer("", "the server said 400: no credit for ***")]
    assert secret not in repr(ask) + ask.key()
    for wrong in (f"{secret}\n", f"{secret}\u00fc"):
        with pytest.raises(InterpToolkitError, match="expected an API key of printable ASCII") as caught:
            ask_server(server.url, "m", api_key=wrong)
        assert secret not in str(caught.value)
        assert caught.value.__cause__ is None
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(InterpToolkitError, match="cannot reach") as caught:
        ask_server(server.url.replace("//", f"//me:{secret}@"), "m", retries=0)(["p"])
    assert secret not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://localhost/v1", "", "http://", "http://a:b"])
def test_what_is_no_web_address_is_refused_before_anything_is_asked(url):
    pytest.importorskip("httpx")
    with pytest.raises(InterpToolkitError, match="expected the address of a server, such as http://localhost:8000/v1"):
        ask_server(url, "m")


def test_a_server_that_breaks_off_fails_rows_and_a_bug_does_not(server, monkeypatch):
    ask = ask_server(server.url, "m", retries=1, wait=0.001, timeout=0.2)
    server.hang = {"slow"}
    slow, good = ask(["slow", "good"])
    assert slow.reason.startswith("no answer from http://127.0.0.1")
    assert slow.reason.endswith("(asked 2 times)")
    assert good == Answer("answer to good")
    assert sum(body["messages"][0]["content"] == "slow" for _, body in server.seen) == 2
    monkeypatch.setattr("interp_toolkit.sae.asking._parse", lambda response: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ask(["good"])


def test_the_old_name_of_the_key_warns(server):
    with pytest.warns(DeprecationWarning, match=r"ask_server\(key=...\) is deprecated; use api_key="):
        ask_server(server.url, "m", key="k")(["p"])
    assert server.headers == ["Bearer k"]


def test_a_server_labels_features(server, tmp_path):
    labeller = llm_labeller(ask_server(server.url, "m"), "m", question="{passages}")
    actual = label_features(labeller, lambda feature: RIVERS, [5], tmp_path)
    (label,) = actual.labels.by_feature()[5]
    assert label.startswith("answer to 1. the boat went down the «Danube»")
    assert actual.labels.table["explainer"].tolist() == ["m"]


def test_a_local_model_answers(tiny):
    result = ask_model(tiny(), max_new_tokens=6)(["fox", "Tell me about rivers."])
    assert len(result) == 2
    assert all(bool(answer.text) != bool(answer.reason) for answer in result)
