"""Session: what a measurement is given: one running server, its models, a client, and prompts never sent before."""

from dataclasses import dataclass
from random import Random

import httpx

from benchmarks.launching import PROMPT_TOKENS
from benchmarks.load import Ask, Target
from benchmarks.options import Options
from benchmarks.process import ServerProcess
from benchmarks.prompts import PromptWriter
from benchmarks.random_adapters import SoftPromptMaker


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One server in one round. Prompts depend on the round and on what they are for, not on the server."""

    server: ServerProcess
    adapters: tuple[str, ...]
    maker: SoftPromptMaker
    client: httpx.AsyncClient
    prompts: PromptWriter
    options: Options
    round: int

    @property
    def base_model(self) -> str:
        return self.server.launch.base_model

    @property
    def target(self) -> Target:
        return self.server.launch.target

    def random(self, *purpose: object) -> Random:
        """A source of randomness for one purpose in this round; another purpose, another source."""
        return Random(f"{self.round}/{purpose}")

    def ask(self, model: str, *purpose: object, tokens: int | None = None, prompt_tokens: int = PROMPT_TOKENS) -> Ask:
        """A question of one message, written for one purpose; as many output tokens as the options say."""
        text = self.prompts.write(self.random(*purpose), prompt_tokens)
        return Ask(model, ({"role": "user", "content": text},), self.options.tokens if tokens is None else tokens)

    def asks(self, models: tuple[str, ...], number: int, *purpose: object, tokens: int | None = None) -> list[Ask]:
        """So many questions, each to one of the models, chosen uniformly."""
        random = self.random("models", *purpose)
        return [self.ask(random.choice(models), *purpose, each, tokens=tokens) for each in range(number)]
