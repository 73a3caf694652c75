"""The program that tries grammars out, in a process of its own: llguidance may hang on one, or overflow its stack.

It needs nothing of the server. Messages are those of `adapters.framing`: in come grammars, each behind a line with the
seconds that it may compute; out come problems, an empty one if the grammar compiles. It ends with its input.
"""

import resource
import signal
import sys
import threading
import time

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from adapters.framing import message, read_message

READY = "ready"
"""The first message out: the next grammar finds a program that has started."""
_STACK_BYTES = 1 << 20  # far less than the server's threads have: what overflows it here cannot do so there
_MEMORY_BYTES = 2 << 30
_GIVE_UP_SECONDS = 5.0  # should the server be gone, and nobody end this program


def parser_limits() -> LLParserLimits:
    """llguidance's own bounds: how much work compiling and each token may take."""
    return LLParserLimits(
        max_items_in_row=2_000,
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_lexer_states=50_000,
        max_grammar_size=200_000,
        precompute_large_lexemes=False,
        verbose_errors=False,
    )


def problem_of(matcher: LLMatcher) -> str:
    """Compute what may come first, where much of the work is done, and say what is wrong by then."""
    matcher.compute_bitmask()
    return matcher.get_error()


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere it cannot be set to any purpose
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    threading.stack_size(_STACK_BYTES)
    worker = threading.Thread(target=_serve)
    worker.start()
    worker.join()


def _serve() -> None:
    tokenizer = LLTokenizer("byte")
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    answer: str = READY
    while True:
        sink.write(message(answer))
        sink.flush()
        task = read_message(source)
        if task is None:
            return
        seconds, _, grammar = task.partition("\n")
        answer = _try_out(grammar, tokenizer, float(seconds))


def _try_out(grammar: str, tokenizer: LLTokenizer, max_cpu_seconds: float) -> str:
    signal.setitimer(signal.ITIMER_REAL, _GIVE_UP_SECONDS)  # its signal ends the process
    before = time.thread_time()
    problem = problem_of(LLMatcher(tokenizer, grammar, log_level=0, limits=parser_limits()))
    signal.setitimer(signal.ITIMER_REAL, 0)
    if not problem and time.thread_time() - before > max_cpu_seconds:
        return "takes too long to compile"
    return problem


if __name__ == "__main__":
    main()
