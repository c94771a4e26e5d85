"""A request that is turned down, in OpenAI's words: what its clients know how to read."""

from __future__ import annotations

from typing import Any

from starlette.requests import ClientDisconnect

from omnivox.errors import OmnivoxError
from omnivox.runtime.engine import BusyError, DrainingError


class RefusedError(OmnivoxError):
    """Turned down.

    status: of HTTP; type, code and param: of OpenAI's error object; retry_after: seconds, where waiting helps.
    """

    def __init__(self, message: str, *, status: int = 400, type: str = "invalid_request_error",  # noqa: A002
                 code: str = "invalid_value", param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.type, self.code, self.param, self.retry_after = status, type, code, param, retry_after

    def to_json(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Of the answer: how long to wait, in whole seconds, how to come in, and whether it ends the connection."""
        found = {} if self.retry_after is None else {"Retry-After": str(max(1, round(self.retry_after)))}
        closing = {"Connection": "close"} if self.status == 408 else {}  # what is left of it would be a request's begin
        return found | closing | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def refusal(error: Exception) -> RefusedError:
    """What to tell a client of an error; of one that is not its own, no more than that."""
    match error:
        case RefusedError():
            return error
        case BusyError():
            return RefusedError(str(error), status=429, type="rate_limit_error", code="engine_busy", retry_after=1.0)
        case DrainingError():
            return RefusedError(str(error), status=503, type="server_error", code="server_draining", retry_after=5.0)
        case ClientDisconnect():
            return RefusedError("The client left before its request was read.", status=499, code="client_disconnected")
        case OmnivoxError():
            return RefusedError(str(error), param=str(error).partition(":")[0] or None)
        case _:
            return RefusedError("The model failed on this request; others are not affected.", status=500,
                                type="server_error", code="model_error")
