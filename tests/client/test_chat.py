"""The chat of the terminal over real servers: commands, history, pipes, errors."""

import json
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from adapters.store import AdapterStore
from client.chat import run_chat
from client.connection import Connection
from client.conversation import Answer, Conversation
from client.errors import ServerRefused
from client.safe_text import printable
from hotprompt import app
from tests.client.answering import answering
from tests.server.building import Running, live_server, soft_prompt_files, tiny_settings
from tests.tiny import CHAT_TEMPLATE, save_tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base("llama", tmp_path_factory.mktemp("bases") / "tiny-llama")


@pytest.fixture(scope="module")
def running(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with an adapter that asks for short answers, so that histories stay within the tiny context."""
    store = tmp_path_factory.mktemp("chat") / "store"
    chat_format = {"template": CHAT_TEMPLATE, "sampling": {"max_tokens": 12, "temperature": 0}}
    AdapterStore(store).publish("brief", soft_prompt_files(1, manifest={"chat_format": chat_format}))
    with live_server(tiny_settings(base, store)) as (running, _):
        yield running


def _talk(url: str, model: str, *lines: str | Callable[[Conversation], str]) -> tuple[Conversation, str, str]:
    """The conversation, the answers and the remarks after these lines; a callable makes its line when it is due."""
    out, remarks = StringIO(), StringIO()
    left = iter(lines)
    with Connection(url) as connection:
        conversation = Conversation(connection, model)

        def read_line() -> str:
            line = next(left, None)
            if line is None:
                raise EOFError
            return line if isinstance(line, str) else line(conversation)

        run_chat(conversation, Console(file=out, width=200), Console(file=remarks, width=200), read_line)
    return conversation, out.getvalue(), remarks.getvalue()


def test_a_conversation_keeps_its_turns_and_tells_how_fast_answers_came(running: Running) -> None:
    conversation, out, remarks = _talk(f"{running.url}/v1", "brief", "hello", "", "again", "/exit", "never")
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 2
    assert [message["content"] for message in conversation.messages[::2]] == ["hello", "again"]
    assert remarks.count("tokens/s") == 2
    assert "12 tokens" in remarks
    assert "ended by the limit of tokens" in remarks
    assert "tokens/s" not in out


def test_retry_asks_the_last_question_again_in_place_of_its_turn(running: Running) -> None:
    conversation, _, remarks = _talk(running.url, "brief", "/retry", "one", "two", "/retry", "/retry")
    assert [message["content"] for message in conversation.messages[::2]] == ["one", "two"]
    assert "nothing has been asked yet" in remarks
    assert remarks.count("tokens/s") == 4


def test_what_failed_can_be_retried_with_another_model(running: Running) -> None:
    conversation, _, remarks = _talk(running.url, "nobody", "hello", "/model brief", "/retry")
    assert "no adapter is named 'nobody'" in remarks
    assert "/models" in remarks
    assert [message["content"] for message in conversation.messages[::2]] == ["hello"]


def test_models_are_listed_and_one_that_is_not_there_is_told(running: Running) -> None:
    _, _, remarks = _talk(running.url, "brief", "/models", "/model nobody", "/model", "/model tiny-llama", "/model")
    assert "tiny-llama\nbrief\n" in remarks
    assert "nobody is not among /models" in remarks
    assert remarks.count("talking to nobody") == 2
    assert remarks.count("talking to tiny-llama") == 2


def test_a_system_prompt_is_what_the_model_is_told_first(running: Running, tmp_path: Path) -> None:
    first, second = tmp_path / "with.json", tmp_path / "without.json"
    talked = ("/system Be short.", "hello", f"/save {first}", "/system", f"/save {second}")
    _, _, remarks = _talk(running.url, "brief", *talked)
    told = json.loads(first.read_text())
    assert told["model"] == "brief"
    assert told["messages"][0] == {"role": "system", "content": "Be short."}
    assert [message["role"] for message in json.loads(second.read_text())["messages"]] == ["user", "assistant"]
    assert "no system prompt any more" in remarks


def test_a_conversation_is_saved_once_and_for_reading(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "chat.md"
    lines = ("hello \x1b[31mred", f"/save {path}", f"/save {path}", "/save", f"/save {tmp_path}/no/where")
    _, _, remarks = _talk(running.url, "brief", *lines)
    assert path.read_text().startswith("# brief\n\n## user\n\nhello [31mred\n\n## assistant\n")
    for said in ("there is such a file already", "which file?", "cannot be written"):
        assert said in remarks


def test_halves_of_characters_do_no_harm(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    conversation, _, _ = _talk(running.url, "brief", "/system \udcff", "half \udcff", "again", f"/save {path}")
    assert len(conversation.messages) == 4
    assert json.loads(path.read_text())["messages"][1]["content"] == "half ?"


def test_clear_forgets_and_help_helps(running: Running) -> None:
    conversation, _, remarks = _talk(running.url, "brief", "hello", "/clear", "/retry", "/help", "/nonsense")
    assert conversation.messages == []
    assert "nothing has been asked yet" in remarks
    assert "there is no /nonsense" in remarks
    assert remarks.count("/save FILE") == 2


def test_ctrl_c_at_the_prompt_drops_the_line_alone(running: Running) -> None:
    def interrupted(_: Conversation) -> str:
        raise KeyboardInterrupt

    conversation, _, _ = _talk(running.url, "brief", interrupted, "hello")
    assert len(conversation.messages) == 2


def test_ctrl_c_keeps_what_came_of_an_answer_and_stops_the_server(running: Running) -> None:
    class Interrupting(StringIO):
        def write(self, text: str) -> int:
            if len(self.getvalue()) > 5:
                raise KeyboardInterrupt
            return super().write(text)

    lines = iter(["hello", "/exit"])
    remarks = StringIO()
    with Connection(running.url) as connection:
        conversation = Conversation(connection, "tiny-llama")
        run_chat(conversation, Console(file=Interrupting()), Console(file=remarks), lambda: next(lines))
    assert "(stopped)" in remarks.getvalue()
    [question, answer] = conversation.messages
    assert question["content"] == "hello"
    assert answer["content"]


# -- pipes, and the command -------------------------------------------------------------------------------------------


def _run(*arguments: str, typed: str, key: str | None = None) -> Result:
    environment = {} if key is None else {"HOTPROMPT_API_KEY": key}
    return CliRunner(env=environment).invoke(app, ["chat", *arguments], input=typed)


@pytest.mark.parametrize("question", ["hello\n", "two\nlines\n", "/save /tmp/no"])
def test_what_comes_through_a_pipe_is_one_question_and_no_command(running: Running, question: str) -> None:
    result = _run("--url", running.url, "--model", "brief", typed=question)
    assert (result.exit_code, result.stderr) == (0, "")
    with Connection(running.url) as connection:
        pieces = Conversation(connection, "brief").ask(question.strip(), Answer())
        assert result.stdout.strip() == printable("".join(pieces)).strip()


def test_a_separator_of_lines_within_an_answer_is_text() -> None:
    body = 'data: {"choices": [{"delta": {"content": "one\u2028two\x85three"}}]}\r\n\r\ndata: [DONE]\n\n'
    with answering(body) as url, Connection(url) as connection:
        assert list(Conversation(connection, "any").ask("hello", Answer())) == ["one\u2028two\x85three"]


def test_an_empty_pipe_is_wrong_usage(running: Running) -> None:
    result = _run("--url", running.url, "--model", "brief", typed=" \n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no question" in result.stderr


def test_each_refusal_is_one_line_that_says_what_to_do(base: Path, running: Running, tmp_path: Path) -> None:
    settings = tiny_settings(base, tmp_path, api_keys="secret-of-the-test", requests_per_minute=1)
    with live_server(settings) as (guarded, _):
        _is_one_line(_run("--url", guarded.url, "--model", "tiny-llama", typed="hi"), "HOTPROMPT_API_KEY")
        _is_one_line(_run("--url", guarded.url, "--model", "nobody", typed="hi", key="secret-of-the-test"), "nobody")
        again = _run("--url", guarded.url, "--model", "nobody", typed="hi", key="secret-of-the-test")
        assert "again in " in _is_one_line(again, "requests")
    _is_one_line(_run("--url", guarded.url, typed="hi"), "does hotprompt serve run there?")
    _is_one_line(_run("--url", running.url, "--model", "nobody", typed="hi"), "/models")
    error = '{"error": {"message": "full\\u001b[2J\\nof  work"}}'
    with answering(error, status=503, headers={"retry-after": "7"}) as url:
        assert "full[2J of work (again in 7 s)" in _is_one_line(_run("--url", url, typed="hi"), "full")
    with answering("<html>", status=502) as url:
        _is_one_line(_run("--url", url, typed="hi"), "answered 502")


def _is_one_line(result: Result, said: str) -> str:
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert said in line
    return str(line)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('data: {"choices": [{"delta": {"content": "half"}}]}\n\n', "broke off"),
        ('data: {"error": {"message": "it failed"}}\n\n', "it failed"),
        ("data: not json\n\n", "broke off"),
        ("data: [1]\n\n", "broke off"),
        ('data: {"choices": [], "usage": {"completion_tokens": "x"}}\n\n', "broke off"),
        ('data: {"choices": [{"delta": {"content": 7}}]}\n\n', "broke off"),
    ],
)
def test_a_stream_that_breaks_off_is_told_and_is_not_part_of_the_history(body: str, told: str) -> None:
    with answering(body) as url:
        conversation, _, remarks = _talk(url, "any", "hello")
        assert told in remarks
        assert conversation.messages == []
        with Connection(url) as connection, pytest.raises(ServerRefused, match=told):
            list(Conversation(connection, "any").ask("hello", Answer()))
