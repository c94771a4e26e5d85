"""`omnivox serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnivox.cli.options import Device, DeviceOption, DtypeOption, Model, Precision, Vocoder, Whisper, clear_errors
from omnivox.errors import ConfigError

if TYPE_CHECKING:
    from omnivox.serve.settings import ServeSettings


def serve(
    model: Model = "nano",
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback a key is demanded.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key: Annotated[list[str] | None, typer.Option(envvar="OMNIVOX_API_KEYS", help="A key that clients must have; "
                                                                                      "may be given again.")] = None,
    allow_public: Annotated[bool, typer.Option("--allow-public", help="Listen beyond loopback without a key.")] = False,
    allow_origin: Annotated[list[str] | None, typer.Option(help="Site whose pages may connect, such as "
                                                                "https://example.com; may be given again.")] = None,
    slots: Annotated[int, typer.Option(min=1, help="Replies made at once.")] = 8,
    queue: Annotated[int, typer.Option(min=0, help="Replies that may wait for a slot.")] = 32,
    context: Annotated[int, typer.Option(min=64, help="Positions of the LLM that a conversation may take.")] = 2048,
    sessions_per_minute: Annotated[int, typer.Option(min=1, help="New clients, for each key or address.")] = 60,
    max_sessions: Annotated[int, typer.Option(min=1, help="Clients at once.")] = 64,
    drain_seconds: Annotated[float, typer.Option(min=0.0, help="For answers under way when it is told to end.")] = 10.0,
    log_content: Annotated[bool, typer.Option("--log-content", help="Write what is said into the log.")] = False,
    ray: Annotated[bool, typer.Option("--ray", help="As replicas of Ray Serve; needs 'omnivox\\[ray]'.")] = False,
    replicas: Annotated[int, typer.Option(min=1, help="With --ray.")] = 2,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Precision.AUTO,
    whisper: Whisper = None,
    vocoder: Vocoder = None,
) -> None:
    """Serve many conversations: the OpenAI Realtime protocol, completions with sound, and a page to talk to.

    Needs `pip install 'omnivox\\[serve]'`. SIGTERM or Ctrl-C: no new sessions, answers under way end.

    Examples:

      omnivox serve

      OMNIVOX_API_KEYS=secret omnivox serve --host 0.0.0.0 --slots 16
    """
    with clear_errors():
        from omnivox.serve.settings import ServeSettings, model_name

        settings = ServeSettings(
            host, port, tuple(api_key or ()), allow_public, tuple(allow_origin or ()), max_sessions=max_sessions,
            sessions_per_minute=sessions_per_minute, requests_per_minute=max(600, sessions_per_minute),
            drain_seconds=drain_seconds, log_content=log_content, model_name=model_name(model))
        loading = {"device": device.value, "dtype": dtype.value, "whisper": whisper, "vocoder": vocoder}
        _serve(model, loading, {"slots": slots, "queue": queue, "context": context}, settings,
               replicas if ray else None)


def _serve(model: str, loading: dict[str, Any], limits: dict[str, int], settings: ServeSettings,
           replicas: int | None) -> None:
    """Raises ConfigError: the server's packages are missing, or it cannot listen there."""
    try:
        from omnivox.serve.guard import check_bind
        from omnivox.serve.run import address, bind
        from omnivox.serve.run import serve as run
    except ImportError as error:
        raise ConfigError(f"serve: a Python package is missing ({error}); install it with: "
                          "pip install 'omnivox[serve]'") from error
    import omnivox
    from omnivox.runtime.engine import Engine, EngineSettings

    check_bind(settings.host, settings)
    if replicas is not None:
        from omnivox.serve.ray import serve as run_ray

        run_ray(model, loading, EngineSettings(**limits), settings, replicas)
        return
    sockets = bind(settings)  # before the model is loaded, which takes long
    typer.echo(f"Loading {model} ...", err=True)
    omni = omnivox.load(model, **loading)
    where = address(sockets)
    run(Engine(omni, EngineSettings(**limits)), settings, sockets, lambda: typer.echo(
        f"http://{where} is the page; ws://{where}/v1/realtime for clients. Ctrl-C ends.", err=True))
