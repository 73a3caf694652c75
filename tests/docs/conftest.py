"""The routes of a real app, for what docs say of them. The app is never started."""

import pytest

from server.api.auth import KeyRing
from server.api.openapi import make_document
from server.api.schema import VERSION
from server.app import create_app
from server.keys import read_callers
from server.services import build_services
from tests.docs.http_calls import Surface
from tests.server.building import tiny_settings
from tests.server.routes import routes_of
from tests.tiny import save_tiny_base


@pytest.fixture(scope="session")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Surface:
    directory = tmp_path_factory.mktemp("surface")
    settings = tiny_settings(save_tiny_base("llama", directory / "tiny-llama"), directory / "store")
    app = create_app(build_services(settings), settings)
    return Surface(tuple(routes_of(app)), make_document(app, KeyRing(read_callers(settings)), VERSION))
