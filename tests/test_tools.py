"""Tools for agents, by a client of the same protocol in this process."""

import asyncio

import mcp
import pytest

from interp_toolkit import Sampling, self_explain
from interp_toolkit.engines.local import local_engine
from interp_toolkit.serve import Limits, Service
from interp_toolkit.serve.scheduler import Scheduler
from interp_toolkit.serve.tools import HOW_TO_READ, create_tools

TEXT = "the cat sat on the mat"


@pytest.fixture
def call(tiny, adapter):
    """call(tool, **arguments): what an agent gets."""
    service = Service(local_engine(tiny()), {"mine": adapter}, Limits())
    with Scheduler(service.engine, service.limits) as scheduler:
        server = create_tools(service, scheduler)

        def run(tool, **arguments):
            async def ask():
                async with mcp.Client(server) as client:
                    return await client.call_tool(tool, arguments)

            return asyncio.run(ask())

        yield run


def _rows(answer):
    assert not answer.is_error, answer.content
    content = answer.structured_content
    assert content["how_to_read"] == HOW_TO_READ
    assert len(content["without_a_vector"]) >= 1
    return content["descriptions"]


def test_a_text_comes_with_evidence_and_how_to_read_it(call, tiny, adapter):
    rows = _rows(call("explain_text", text=TEXT))
    (here,) = self_explain(TEXT, model=tiny(), adapter=adapter)
    (row,) = rows
    assert row["description"] == here.description
    assert row["evidence"] == pytest.approx(here.evidence, abs=1e-4)
    assert {"token", "position", "site", "abstains", "confidence", "log_prob"} <= set(row)
    assert len(_rows(call("explain_text", text=TEXT, samples=3))) == 3
    of_tokens = _rows(call("explain_text", text=TEXT, tokens="content", chat=True))
    assert len(of_tokens) == len(self_explain(TEXT, model=tiny(), adapter=adapter, positions="content"))


def test_a_vector_is_described(call, tiny, adapter, random_vectors):
    vector = random_vectors(1, adapter.config.width)[0]
    rows = _rows(call("describe_vector", vector=vector.tolist(), samples=2))
    here = self_explain(vector, model=tiny(), adapter=adapter, sampling=Sampling(n=2))
    assert [row["description"] for row in rows] == [row.description for row in here]


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("explain_text", {"text": " "}, "prompt 0 is empty"),
        ("explain_text", {"text": "a", "adapter": "../other"}, "expected one of the adapters mine"),
        ("explain_text", {"text": "a", "layers": [99]}, "99"),
        ("explain_text", {"text": "a " * 60, "tokens": "content", "samples": 16}, "expected at most 400 descriptions"),
        ("describe_vector", {"vector": [1.0]}, "expected vectors of shape"),
        ("describe_vector", {"vector": [0.0] * 32}, "vector 0 is zero"),
    ],
)
def test_a_mistake_is_said_to_the_agent(call, tool, arguments, text):
    answer = call(tool, **arguments)
    assert answer.is_error
    assert text in answer.content[0].text


def test_what_weak_evidence_means_stands_in_every_tool(call, tiny, adapter):
    service = Service(local_engine(tiny()), {"mine": adapter}, Limits())
    with Scheduler(service.engine, service.limits) as scheduler:
        tools = asyncio.run(create_tools(service, scheduler).list_tools())
    assert {tool.name for tool in tools} == {"explain_text", "describe_vector"}
    assert all("treat the description as a guess" in tool.description for tool in tools)
