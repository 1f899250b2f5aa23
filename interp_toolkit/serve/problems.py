"""Errors as clients see them: problem details (RFC 9457) with the library's sentence, and no more."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.serve.scheduler import Closing, Overloaded

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
# Characters of a sentence; one may repeat what a client sent.
_LONGEST = 1000


class NotFound(InterpToolkitError):
    """A client names what this server does not offer."""


def problem(error: BaseException) -> tuple[int, dict[str, Any], dict[str, str]]:
    """The status, body and headers of the response to an error."""
    if isinstance(error, Overloaded):
        return _problem(429, str(error), {"Retry-After": str(error.retry_after)})
    if isinstance(error, Closing):
        return _problem(503, str(error), {"Retry-After": "10"})
    if isinstance(error, NotFound):
        return _problem(404, str(error))
    if isinstance(error, InterpToolkitError):
        return _problem(400, str(error))
    if isinstance(error, RequestValidationError):
        return _problem(422, _sentence(error.errors()))
    if isinstance(error, HTTPException):
        return _problem(error.status_code, str(error.detail), dict(error.headers or {}))
    logger.error("a request failed", exc_info=error)
    return _problem(500, "the server failed at this request, and its log says why; nothing is wrong with others")


def problem_response(error: BaseException) -> Response:
    """The response to an error."""
    status, body, headers = problem(error)
    return JSONResponse(body, status, headers, media_type=MEDIA_TYPE)


def add_handlers(app: FastAPI) -> None:
    """Let an application answer every error as a problem."""

    async def respond(request: Request, error: Exception) -> Response:
        return problem_response(error)

    for kind in (InterpToolkitError, Overloaded, Closing, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, respond)


def _problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any], dict[str, str]]:
    title = HTTPStatus(status).phrase
    body = dict(type="about:blank", title=title, status=status, detail=detail[:_LONGEST])
    return status, body, dict(headers or {})


def _sentence(errors: Any) -> str:
    """The first of pydantic's complaints, without the value, which may be long."""
    first = errors[0]
    where = ".".join(str(x) for x in first.get("loc", ()) if x != "body") or "the body"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"expected another value at {where}: {first.get('msg', 'it cannot be used')}{more}"
