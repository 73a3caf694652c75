"""Every route of an app, as tests need it: method, a path that can be called, and an example of its body."""

import re
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from server.api.openapi import body_model
from server.api.openapi_examples import EXAMPLES

NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class RouteUnderTest:
    """`path` has an unknown name where the route has a parameter; `body` is the type of its JSON body, if any."""

    method: str
    template: str
    path: str
    body: Any
    in_document: bool

    @property
    def name(self) -> str:
        return f"{self.method} {self.template}"

    @property
    def examples(self) -> list[Any]:
        """Bodies that the route understands."""
        return list(EXAMPLES.get(self.name, {}).values())


def routes_of(app: FastAPI) -> list[RouteUnderTest]:
    """All that is served, whether it is in the OpenAPI document or not."""
    found = []
    for route in iter_route_contexts(app.routes):
        template = route.path_format
        assert template is not None
        template = template.replace("{file}", "app.js")  # no name of a thing: the page's files are a fixed list
        path = template.replace("{name}", NOBODY).replace("{model}", NOBODY).replace("{job}", NOBODY)
        assert "{" not in path, "a parameter that the tests do not know"
        found += [
            RouteUnderTest(method, template, path, body_model(route), route.include_in_schema)
            for method in sorted(route.methods or ())
        ]
    return found


def methods_of(routes: list[RouteUnderTest], path: str) -> set[str]:
    """What may be done at one path, which may be one of several templates."""
    return {route.method for route in routes if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route.template), path)}
