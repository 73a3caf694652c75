"""Which model a request asks for, wherever it says so. Knows no route and no model."""

from starlette.requests import Request

PATH_PARAMETERS = ("model", "name")
BODY_FIELD = "model"


async def asked_model(request: Request) -> str | None:
    """The model in the path, or in a JSON body; None where none is named, or not as text."""
    for parameter in PATH_PARAMETERS:
        if parameter in request.path_params:
            return str(request.path_params[parameter])
    if not await request.body():
        return None
    try:
        body = await request.json()  # has been parsed before: this is the very object that the route is given
    except (ValueError, RecursionError):
        return None
    model = body.get(BODY_FIELD) if isinstance(body, dict) else None
    return model if isinstance(model, str) else None
