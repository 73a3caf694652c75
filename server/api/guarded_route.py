"""A route that checks its key before it reads anything of the body. Knows no key and no path.

FastAPI reads and validates the body first, and only then asks the dependencies.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from server.api.deps import require_admin_key, require_chat_key

KEY_CHECKS = (require_chat_key, require_admin_key)


class GuardedRoute(APIRoute):
    """Asks those of its own dependencies that check keys, and then goes on like any other route."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler that FastAPI would make, behind the checks."""
        handle = super().get_route_handler()
        asked = {depends.dependency for depends in self.dependencies}
        checks = [check for check in KEY_CHECKS if check in asked]

        async def guarded(request: Request) -> Response:
            for check in checks:
                await check(request)
            return await handle(request)

        return guarded
