"""The web application: the Realtime protocol, completions, health, metrics and the page."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from importlib import resources
from typing import Any

import soundfile
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnivox.runtime.engine import Engine
from omnivox.serve.completions import router
from omnivox.serve.connection import Connections
from omnivox.serve.guard import Guard
from omnivox.serve.memory import tidy
from omnivox.serve.metrics import Metrics
from omnivox.serve.refusal import RefusedError, refusal
from omnivox.serve.settings import ServeSettings

WEB = resources.files("omnivox.serve").joinpath("web")
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; "
          "media-src 'self' blob:; img-src 'self' data:; worker-src 'self'; base-uri 'none'; form-action 'none'; "
          "frame-ancestors 'none'")
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
           "Cross-Origin-Opener-Policy": "same-origin", "Permissions-Policy": "microphone=(self)"}
EXAMPLES = 6  # spoken questions offered by the page
ASKING = frozenset(("what", "what's", "which", "who", "how", "when", "where", "why", "is", "are", "do", "does", "can"))


class Secured:
    """Puts the headers on every answer, without standing between a stream and its reader."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, sent if scope["type"] == "http" else send)


def create_app(engine: Engine, settings: ServeSettings | None = None) -> FastAPI:
    """An app around a running engine. `app.state.connections` knows the open sessions, and drains them."""
    settings = settings or ServeSettings()
    metrics, guard = Metrics(), Guard(settings)
    pool = ThreadPoolExecutor(2, "omnivox-ears")
    connections = Connections(engine, settings, metrics, guard, pool)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        tidying = asyncio.create_task(tidy())
        yield
        tidying.cancel()
        pool.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(title="omnivox", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.connections, app.state.metrics, app.state.engine = connections, metrics, engine

    app.add_middleware(Secured)
    app.include_router(router(engine, settings, metrics, guard, draining=lambda: connections.draining))

    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        await connections.serve(socket)

    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether the process lives."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether it takes new sessions."""
        ready = engine.alive and not connections.draining
        return JSONResponse({"status": "ready" if ready else "draining"}, 200 if ready else 503)

    @app.get("/metrics")
    async def scrape(request: Request) -> Response:
        """For Prometheus; with a key where there are keys."""
        try:
            guard.admit(request)
        except RefusedError as error:
            refused = refusal(error)
            return JSONResponse(refused.to_json(), refused.status, refused.headers())
        metrics.observe(engine.stats())
        text, kind = metrics.render()
        return Response(text, media_type=kind)

    _page(app)
    return app


def _page(app: FastAPI) -> None:
    """The page, and a few spoken questions to try it with."""
    with resources.as_file(WEB) as folder:
        web = folder

    @app.get("/")
    async def index() -> Response:
        return FileResponse(web / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/web/examples.json")
    def examples() -> Response:
        texts = [text for text, _ in _examples()]
        return JSONResponse([{"text": text, "url": f"/web/examples/{i}.wav"} for i, text in enumerate(texts)])

    @app.get("/web/examples/{number}.wav")
    def example(number: int) -> Response:
        found = _examples()
        if not 0 <= number < len(found):
            return JSONResponse({"detail": f"there are {len(found)} examples"}, 404)
        return Response(found[number][1], media_type="audio/wav")

    app.mount("/web", StaticFiles(directory=web), name="web")


@cache
def _examples() -> list[tuple[str, bytes]]:
    """Words and wav file of some held-out questions: of each topic the shortest, and of the topics a few."""
    from omnivox.nano.questions import held_out

    shortest = {asked.topic: asked for asked in sorted(held_out("seen_voice"), key=lambda asked: -len(asked.question))}
    found = []
    for topic in sorted(shortest)[:: max(1, len(shortest) // EXAMPLES)][:EXAMPLES]:
        file, words = io.BytesIO(), shortest[topic].question
        soundfile.write(file, shortest[topic].audio, 16_000, subtype="PCM_16", format="WAV")
        asks = words.split()[0] in ASKING
        found.append((words[0].upper() + words[1:] + ("?" if asks else "."), file.getvalue()))
    return found
