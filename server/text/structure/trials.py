"""GrammarTrials: tries a grammar out in a process that can be ended. Knows no structure and no tokenizer."""

from adapters.killable import KillableProcesses


class GrammarTrials:
    """Processes that are started when they are needed, and kept. Used by several threads at once."""

    def __init__(self) -> None:
        self._processes = KillableProcesses("server.text.structure.trial_program")

    def problem_of(self, grammar: str, seconds: float) -> str:
        """Why a grammar cannot be compiled, as llguidance says it or in words of our own; empty if it can.

        `seconds` is wall time; half of it may be computing, the rest is for a busy machine.
        """
        try:
            return self._processes.ask(f"{seconds / 2}\n{grammar}", seconds)
        except TimeoutError:
            return f"takes longer to compile than {round(seconds * 1000)} ms"
        except (OSError, EOFError):
            return "is too deep or too large to be compiled"

    def close(self) -> None:
        """End the processes; those in use end when their grammar is done."""
        self._processes.close()
