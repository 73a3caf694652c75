"""The chat in the terminal: its commands, and what is shown of answers and errors. Knows no HTTP and no keyboard."""

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from client.answer_view import markdown_view, plain_view
from client.chat_save import save
from client.conversation import Answer, Conversation
from client.errors import ClientError, ServerRefused, ServerUnreachable
from client.safe_text import one_line, printable

HELP = """\
/model NAME     talk to another model or adapter, with the same history; without NAME, tell which it is
/models         list what there is
/system TEXT    set the system prompt; without TEXT, remove it
/retry          ask the last question again
/save FILE      write the conversation: as JSON where FILE ends in .json, else as Markdown
/clear          forget the conversation
/help           this
/exit           end, as Ctrl-D does; Ctrl-C stops an answer"""


@dataclass(frozen=True, slots=True)
class Screen:
    """Where answers go (`out`) and where remarks go (`remarks`)."""

    out: Console
    remarks: Console
    is_markdown: bool

    def remark(self, text: str, style: str = "dim") -> None:
        self.remarks.print(Text(printable(text), style), soft_wrap=True)


def answer_once(conversation: Conversation, console: Console, question: str) -> None:
    """Write the answer to one question as plain text. Raises ClientError, with what there is to do about it."""
    try:
        with plain_view(console) as show, closing(conversation.ask(question, Answer())) as pieces:
            for piece in pieces:
                show(piece)
    except ClientError as error:
        raise ClientError(_with_advice(error)) from error


def run_chat(
    conversation: Conversation,
    out: Console,
    remarks: Console,
    read_line: Callable[[], str],
    *,
    is_markdown: bool = True,
) -> None:
    """Talk until /exit or the end of the input. Ctrl-C stops an answer, or drops a line that is being typed."""
    screen = Screen(out, remarks, is_markdown and out.is_terminal)
    screen.remark(f"{conversation.model} at {conversation.connection.url}; /help tells what else can be typed")
    while True:
        try:
            line = read_line().strip()
        except KeyboardInterrupt:
            screen.remark("")
            continue
        except EOFError:
            screen.remark("")
            return
        if line == "/exit":
            return
        try:
            _obey(conversation, screen, line)
        except KeyboardInterrupt:
            screen.remark("(stopped)")
        except ClientError as error:
            screen.remark(_with_advice(error), "red")


def _obey(conversation: Conversation, screen: Screen, line: str) -> None:
    """Do what one line says. Raises ClientError, KeyboardInterrupt."""
    command, _, rest = line.partition(" ")
    if line.startswith("/"):
        act = _COMMANDS.get(command)
        if act is None:
            screen.remark(f"there is no {command}\n{HELP}")
        else:
            act(conversation, screen, rest.strip())
    elif line:
        _turn(conversation, screen, line)


def _turn(conversation: Conversation, screen: Screen, question: str) -> None:
    """Ask and show. An answer that is stopped is kept as far as it came; one that fails is not."""
    answer = Answer()
    view = markdown_view if screen.is_markdown else plain_view
    try:
        with closing(conversation.ask(question, answer)) as pieces, view(screen.out) as show:
            for piece in pieces:
                show(piece)
    except KeyboardInterrupt:
        if answer.text:
            conversation.keep(answer)
        raise
    conversation.keep(answer)
    screen.remark(_measured(answer))


def _measured(answer: Answer) -> str:
    facts = []
    if answer.num_tokens is not None:
        facts.append(f"{answer.num_tokens} tokens")
    if (rate := answer.tokens_per_second) is not None:
        facts.append(f"{rate:.1f} tokens/s")
    if answer.seconds_to_first is not None:
        facts.append(f"first after {answer.seconds_to_first:.2f} s")
    if answer.finish_reason == "length":
        facts.append("ended by the limit of tokens")
    return " · ".join(facts) or "an empty answer"


def _set_model(conversation: Conversation, screen: Screen, name: str) -> None:
    if name:
        with suppress(ServerRefused):  # a key may chat and not list; what there is not, the next answer tells
            if name.partition("@")[0].rpartition(":")[2] not in conversation.models():
                screen.remark(f"{name} is not among /models; trying it all the same")
        conversation.model = name
    screen.remark(f"talking to {conversation.model}")


def _list_models(conversation: Conversation, screen: Screen, _: str) -> None:
    screen.remark("\n".join(one_line(name) for name in conversation.models()))


def _set_system(conversation: Conversation, screen: Screen, text: str) -> None:
    conversation.system = text or None
    screen.remark("the system prompt is set" if text else "there is no system prompt any more")


def _retry(conversation: Conversation, screen: Screen, _: str) -> None:
    question = conversation.taken_back()
    if question is None:
        screen.remark("nothing has been asked yet")
    else:
        _turn(conversation, screen, question)


def _save(conversation: Conversation, screen: Screen, name: str) -> None:
    if not name:
        screen.remark("/save FILE: which file?")
        return
    save(conversation, Path(name))
    screen.remark(f"the conversation is in {name}")


def _clear(conversation: Conversation, screen: Screen, _: str) -> None:
    conversation.clear()
    screen.remark("the conversation is forgotten")


def _help(_: Conversation, screen: Screen, __: str) -> None:
    screen.remark(HELP)


_COMMANDS: dict[str, Callable[[Conversation, Screen, str], None]] = {
    "/model": _set_model,
    "/models": _list_models,
    "/system": _set_system,
    "/retry": _retry,
    "/save": _save,
    "/clear": _clear,
    "/help": _help,
}


def _with_advice(error: ClientError) -> str:
    """The error in one line, and what to do about it where that is known."""
    if isinstance(error, ServerUnreachable):
        return f"{error}; does hotprompt serve run there?"
    if not isinstance(error, ServerRefused):
        return str(error)
    if error.status == 401:
        return f"{error} (set HOTPROMPT_API_KEY, or give --api-key)"
    if error.status == 404:
        return f"{error} (/models, in a chat, lists what there is)"
    if error.status in (429, 503) and error.retry_after:
        return f"{error} (again in {error.retry_after} s)"
    return str(error)
