"""Ids of requests, answers and calls. Knows no secret: none of these ids opens anything."""

import random


def random_id() -> str:
    """32 hexadecimal digits, made without asking the kernel.

    `uuid4` reads the kernel's randomness, and gives the interpreter's lock away for it: with an engine computing in
    another thread, the event loop then waits up to a switch interval (5 ms) for each id.
    """
    return f"{random.getrandbits(128):032x}"
