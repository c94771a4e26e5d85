"""The same app as replicas on a Ray cluster: `omnivox serve --ray`, or `build` from a Ray Serve configuration.

Ray's proxies listen, and hand each connection to a replica that has few. A WebSocket stays with its replica to the
end; where that replica dies its clients are disconnected, connect again and find another, and Ray starts it anew.
Everything that ServeSettings limits is counted by each replica for itself.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from omnivox.errors import ConfigError
from omnivox.runtime.engine import Engine, EngineSettings
from omnivox.serve.guard import check_bind
from omnivox.serve.settings import ServeSettings, model_name

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAME = "omnivox"
REPLICA_HEADER = "x-omnivox-replica"
SESSION_HEADER = "x-session-id"  # Ray's own name for it
_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
Application = Any  # of Ray, which need not be here
MakeEngine = Callable[[], Engine]
"""Loads a model and gives an engine that is not started yet; called in each replica."""


@dataclass(frozen=True)
class RaySettings:
    """replicas: processes with a model each; cpus, gpus: that Ray keeps free for each. Raises ConfigError.

    sticky: requests with the same `x-session-id` header go to the same replica, while it lives; those without one are
    then spread by chance instead of by load.
    """

    replicas: int = 2
    cpus: float = 1.0
    gpus: float = 0.0
    sticky: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.replicas, bool) or not isinstance(self.replicas, int) or self.replicas < 1:
            raise ConfigError(f"replicas: found {self.replicas!r}; expected a whole number, 1 or more")
        for name in ("cpus", "gpus"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ConfigError(f"{name}: found {value!r}; expected a number, 0 or more")


def application(make_engine: MakeEngine, settings: ServeSettings, cluster: RaySettings) -> Application:
    """The app as a Ray Serve application of `cluster.replicas` replicas. Raises ConfigError where Ray is missing."""
    ray_serve = _ray("ray.serve")

    class Replica:
        """What Ray watches: it starts a replica anew whose engine has died."""

        def __serve_build_asgi_app__(self) -> FastAPI:
            replica = ray_serve.get_replica_context().replica_id.unique_id
            self.engine, app = _start(make_engine, settings, replica)
            return app

        def check_health(self) -> None:
            if not self.engine.alive:
                raise RuntimeError("the engine has stopped")

    at_once = 2 * settings.max_sessions + 16  # sessions and requests: so that the app itself refuses, with a reason
    options: dict[str, Any] = {
        "name": NAME, "num_replicas": cluster.replicas, "max_ongoing_requests": at_once,
        "max_queued_requests": at_once, "graceful_shutdown_timeout_s": settings.drain_seconds,
        "ray_actor_options": {"num_cpus": cluster.cpus, "num_gpus": cluster.gpus}}
    if cluster.sticky:
        options["request_router_config"] = _ray("ray.serve.config").RequestRouterConfig(request_router_class=_ROUTER)
    return ray_serve.deployment(**options)(ray_serve.ingress()(Replica)).bind()


def serve(model: str, loading: Mapping[str, Any], engine: EngineSettings, settings: ServeSettings,
          replicas: int) -> None:
    """`omnivox serve --ray`. loading: the keyword arguments of `omnivox.load`. Raises what `run` does."""
    gpus = 1.0 if loading.get("device") == "cuda" else 0.0
    run(_maker(model, loading, engine), settings, RaySettings(replicas, gpus=gpus))


def run(make_engine: MakeEngine, settings: ServeSettings, cluster: RaySettings) -> None:
    """Serve on the cluster that RAY_ADDRESS names, else on one of this machine's own, until told to end.

    Where Ray Serve runs already its proxies listen where they do.
    Raises ConfigError: Ray is missing, or others could come in without a key.
    """
    check_bind(settings.host, settings)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody unless asked for
    ray_serve = _ray("ray.serve")
    ray_serve.start(http_options={"host": settings.host, "port": settings.port})
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray's own would dump its stack
    try:
        ray_serve.run(application(make_engine, settings, cluster), name=NAME, route_prefix="/")
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        ray_serve.delete(NAME)  # and nothing else that may run on the cluster; one of our own ends with this process


def build(args: Mapping[str, object]) -> Application:
    """For `import_path: omnivox.serve.ray:build` in a Ray Serve configuration, whose `args` these are.

    model: "nano", a folder or a hub name; device, dtype, whisper, vocoder: as `omnivox.load` has them; the fields of
    EngineSettings, RaySettings and, but host and port, of ServeSettings. Keys come from the environment variable
    OMNIVOX_API_KEYS, apart by spaces, and never from a file that others read. Ray's proxies listen where the cluster's
    own configuration says. Raises ConfigError.
    """
    left = {name: str(value) for name, value in args.items() if name not in ("api_keys", "host", "port")}
    model = left.pop("model", "nano")
    loading: dict[str, str] = {name: left.pop(name) for name in _LOADING if name in left}
    engine, cluster = _read(EngineSettings(), left), _read(RaySettings(), left)
    keys = tuple(os.environ.get("OMNIVOX_API_KEYS", "").split())
    settings = ServeSettings(api_keys=keys, host="0.0.0.0", model_name=model_name(model))  # noqa: S104 a cluster's
    settings = _read(settings, left)
    if unknown := sorted(left.keys() | args.keys() & {"api_keys", "host", "port"}):
        raise ConfigError(f"args: found {', '.join(unknown)}; expected model, what `omnivox.load` takes, or fields of "
                          "EngineSettings, RaySettings or ServeSettings without api_keys, host and port")
    check_bind(settings.host, settings)
    return application(_maker(model, loading, engine), settings, cluster)


def _maker(model: str, loading: Mapping[str, Any], settings: EngineSettings) -> MakeEngine:
    """Loads in the replica, so that only names travel there."""
    def make_engine() -> Engine:
        from omnivox.checkpoint import load_checkpoint
        from omnivox.runtime.respond import Omni

        return Engine(Omni.from_checkpoint(load_checkpoint(model, **loading)), settings)

    return make_engine


def _read(settings: Settings, args: dict[str, str]) -> Settings:
    """The settings with those of `args` that are theirs, which are taken out of it."""
    changes: dict[str, Any] = {}
    for name, usual in asdict(settings).items():
        if name in args:
            text = args.pop(name)
            try:
                changes[name] = _VALUES[type(usual)](text)
            except (KeyError, ValueError) as error:
                raise ConfigError(f"{name}: found {text!r}; expected such as {usual!r}") from error
    return replace(settings, **changes)


Settings = TypeVar("Settings", EngineSettings, RaySettings, ServeSettings)
_LOADING: tuple[str, ...] = ("device", "dtype", "whisper", "vocoder")
_VALUES: dict[type, Callable[[str], object]] = {
    bool: lambda text: {"true": True, "false": False}[text.lower()], int: int, float: float, str: str,
    tuple: lambda text: tuple(text.split())}


def _start(make_engine: MakeEngine, settings: ServeSettings, replica: str) -> tuple[Engine, FastAPI]:
    """In a replica: its engine, running, and the app around it."""
    from omnivox.serve.app import create_app
    from omnivox.serve.logs import configure

    configure(settings)
    engine = make_engine().start()
    app = create_app(engine, settings)
    app.add_middleware(_Named, replica=replica)
    return engine, app


class _Named:
    """Tells each client which replica it has, in a header."""

    def __init__(self, app: ASGIApp, replica: str) -> None:
        self._app, self._header = app, (REPLICA_HEADER.encode(), replica.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                message = {**message, "headers": [*message.get("headers", ()), self._header]}
            await send(message)

        await self._app(scope, receive, named)


def _ray(name: str) -> Any:
    """A module of Ray. Raises ConfigError where it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"ray: Python package ray is missing ({error}); install it with: "
                          "pip install 'omnivox[ray,serve]'") from error
