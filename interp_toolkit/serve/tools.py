"""Tools for agents, over the Model Context Protocol: every answer says how far it can be trusted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field, FiniteFloat

from interp_toolkit.describing import describe
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explanations import Explanation
from interp_toolkit.runtime import Sampling
from interp_toolkit.serve.bodies import DescribeBody, ExplainBody, SamplingBody, json_value
from interp_toolkit.serve.limits import MOST_CHARACTERS, MOST_SAMPLES
from interp_toolkit.serve.reading import Reading
from interp_toolkit.serve.scheduler import Overloaded, Scheduler
from interp_toolkit.serve.service import Service

T = TypeVar("T")

# In audits, agents were misled by weak evidence that they read as strong.
HOW_TO_READ = (
    "These are a small frozen model's own words for its hidden states, not facts. 'evidence' is the log-likelihood "
    "ratio of the description, vector against no vector, in nats per token: near zero the words are the adapter's "
    "habit and say nothing. Where 'abstains' is true, controls without any meaning reach as much evidence: treat the "
    "description as a guess and do not build on it. 'confidence' is the calibrated probability that the description "
    "names the token's word (at the end of a turn, its topic); null means that it is not calibrated there. A "
    "description of high evidence can still be wrong: check it, by another layer, more samples or steering, before "
    "you report it."
)
_INSTRUCTIONS = (
    "Describe what a language model holds at tokens of a text, or what a vector of its residual stream means. "
    + HOW_TO_READ
)
# Rows that an answer holds at most: an agent reads all of them.
_MOST_ROWS = 400


class Description(BaseModel):
    """One description of one vector."""

    token: str
    position: int
    site: str
    description: str
    evidence: float | None
    abstains: bool | None
    confidence: float | None
    log_prob: float | None


class Descriptions(BaseModel):
    """Descriptions, and how to read them."""

    how_to_read: str
    adapter: str
    model: str
    without_a_vector: list[str]
    descriptions: list[Description]


def create_tools(service: Service, scheduler: Scheduler) -> MCPServer[Any]:
    """Make the MCP server that ``interp-toolkit mcp`` runs.

    Args:
        service: the model and its adapters.
        scheduler: in whose thread the model runs.

    Returns:
        a server with the tools `explain_text` and `describe_vector`.
    """
    server: MCPServer[Any] = MCPServer("interp_toolkit", instructions=_INSTRUCTIONS)

    async def run(function: Callable[[], T]) -> T:
        try:
            return await asyncio.wrap_future(scheduler.call(function))
        except (InterpToolkitError, Overloaded) as error:
            raise ToolError(str(error)) from error

    @server.tool(description="Describe what the model holds at tokens of a text. " + HOW_TO_READ)
    async def explain_text(
        text: Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)],
        tokens: Annotated[
            Literal["last", "content"], Field(description="the last token of all, or each token of the text")
        ] = "last",
        layers: Annotated[
            list[int] | None, Field(description="layers to read, each on its own; by default the adapter's")
        ] = None,
        samples: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 1,
        chat: Annotated[bool, Field(description="read the text as a user's turn, not as plain text")] = True,
        adapter: str | None = None,
    ) -> Descriptions:
        body = ExplainBody(
            texts=[text],
            positions=tokens,
            sites=layers,  # type: ignore[arg-type]
            sampling=SamplingBody(n=samples),
            chat=chat,
            adapter=adapter,
            include_null=True,
        )

        def read() -> Descriptions:
            (reading,) = service.reader.read([body])
            if isinstance(reading, Exception):
                raise reading
            return _described(service, reading, body.sampling.value())

        return await run(read)

    @server.tool(description="Describe a vector of the model's residual stream, centred or a direction. " + HOW_TO_READ)
    async def describe_vector(
        vector: Annotated[list[FiniteFloat], Field(min_length=1, max_length=1_000_000)],
        layer: Annotated[int | None, Field(description="where it is from")] = None,
        samples: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 1,
        adapter: str | None = None,
    ) -> Descriptions:
        body = DescribeBody(
            vectors=[vector], site=layer, sampling=SamplingBody(n=samples), adapter=adapter, include_null=True
        )
        return await run(lambda: _described(service, service.reader.take(body), body.sampling.value()))

    return server


def _described(service: Service, reading: Reading, sampling: Sampling) -> Descriptions:
    count = len(reading.prepared.vectors) * sampling.n
    if count > _MOST_ROWS:
        raise InterpToolkitError(
            f"expected at most {_MOST_ROWS} descriptions per call, got {count}; give a shorter text, fewer layers or "
            f"samples"
        )
    rows: Sequence[Explanation] = describe(service.engine, reading.prepared, sampling)
    return Descriptions(
        how_to_read=HOW_TO_READ,
        adapter=reading.begin["adapter"],
        model=reading.begin["model"],
        without_a_vector=[row["description"] for row in reading.begin["null"]],
        descriptions=[
            Description(
                token=row.token,
                position=row.position,
                site=row.site,
                description=row.description,
                evidence=json_value(row.evidence),
                abstains=None if row.above_threshold is None else not row.above_threshold,
                confidence=row.confidence,
                log_prob=json_value(row.log_prob),
            )
            for row in rows
        ],
    )
