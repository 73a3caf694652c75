"""What a web page of another origin sends is refused before it is read; what no browser sent passes."""

from pathlib import Path

import pytest

from tests.server.building import app_client, chat_body, multipart, soft_prompt_files, tiny_settings

NAMED = "https://chat.example"


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"origin": "http://hotprompt.test", "sec-fetch-site": "same-origin"}, True),
        ({"origin": "https://public.example", "sec-fetch-site": "same-origin"}, True),  # behind a proxy
        ({"origin": "http://hotprompt.test"}, True),
        ({"origin": NAMED, "sec-fetch-site": "cross-site"}, True),
        ({"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"origin": "http://evil.hotprompt.test", "sec-fetch-site": "same-site"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
    ],
)
async def test_a_foreign_page_can_upload_nothing(
    headers: dict[str, str], *, passes: bool, tiny_base: Path, tmp_path: Path
) -> None:
    settings = tiny_settings(tiny_base, tmp_path, cors_origins=(NAMED,))
    async with app_client(settings) as (_, client):
        named = {"host": "hotprompt.test", **headers}
        body = chat_body("tiny-llama", max_tokens=1)
        chat = await client.post("/v1/chat/completions", json=body, headers=named)
        files = multipart(soft_prompt_files(1))
        upload = await client.post("/v1/adapters", data={"name": "one"}, files=files, headers=named)
        listed = (await client.get("/v1/adapters", headers=named)).json()["data"]
        assert (chat.status_code, upload.status_code) == ((200, 201) if passes else (403, 403))
        assert [record["id"] for record in listed] == (["one"] if passes else [])
        if not passes:
            assert upload.json()["error"]["code"] == "origin_not_allowed"
