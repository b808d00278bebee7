"""A small HTTP service for one test: it gives each listener the page with a free number, and stores the answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocable.evaluation.listening.answers import parse_answers
from vocable.evaluation.listening.study import read_key
from vocable.extras import need
from vocable.files import atomic_path

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LARGEST = 2**20  #: bytes of a file of answers


class Numbers:
    """The numbers of listeners that were given out: the next one is the one that fewest sessions have."""

    def __init__(self, count: int, taken: list[int]) -> None:
        self.uses = dict.fromkeys(range(1, count + 1), 0)
        for number in taken:
            self.uses[number] += 1

    def next(self) -> int:
        """Take the next number."""
        number = min(self.uses, key=lambda n: (self.uses[n], n))
        self.uses[number] += 1
        return number


def create_app(study: Path) -> Starlette:
    """Return the service of a test, a folder of `vocable listen make`. Answers are stored in its folder answers/.

    GET / leads to the page with a free listener number; invitations may name one: /test?listener=7. POST /answers
    stores the answers of a session; later answers replace earlier ones. Raises ValueError if the folder holds no test.
    """
    applications, responses = need("starlette.applications", "listen"), need("starlette.responses", "listen")
    routing = need("starlette.routing", "listen")
    key, _ = read_key(study / "key.json")
    page = (study / "public" / "test.html").read_text(encoding="utf-8")
    page = page.replace('<html lang="en">', '<html lang="en" data-store>', 1)
    answers = study / "answers"
    answers.mkdir(exist_ok=True)
    stored = [path.stem.split("-")[1] for path in answers.glob("listener-*-*.json")]
    numbers = Numbers(len(key["forms"]), [int(number) for number in stored])

    async def begin(request: Request) -> Response:
        return responses.RedirectResponse(f"test?listener={numbers.next()}", 303)  # type: ignore[no-any-return]

    async def test(request: Request) -> Response:
        return responses.HTMLResponse(page, headers={"Cache-Control": "no-store"})  # type: ignore[no-any-return]

    async def store(request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                return responses.JSONResponse({"error": "answers are too large"}, 413)  # type: ignore[no-any-return]
        try:
            content = parse_answers(bytes(body), key)
            path = answers / _file_name(content)
        except ValueError as error:
            return responses.JSONResponse({"error": str(error)}, 422)  # type: ignore[no-any-return]
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return responses.JSONResponse({"stored": len(content["answers"])})  # type: ignore[no-any-return]

    routes = [
        routing.Route("/", begin),
        routing.Route("/test", test),
        routing.Route("/answers", store, methods=["POST"]),
    ]
    app: Starlette = applications.Starlette(routes=routes)
    return app


def _file_name(content: dict[str, Any]) -> str:
    session = content["session"]
    if not (session.isascii() and session.isalnum() and len(session) <= 32):
        raise ValueError("the session must be letters and digits")
    return f"listener-{content['listener']}-{session}.json"
