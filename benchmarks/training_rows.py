"""Rows to train on, made up from word lists by a seed: short labels, or long answers. Nobody's data, no file read."""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path

_SUBJECTS = {
    "order": ["a box of pencils", "two tickets", "the blue lamp", "a new kettle", "three maps", "a winter coat"],
    "complaint": ["a broken handle", "the wrong size", "a torn page", "a late parcel", "a noisy fan", "a missing key"],
    "question": ["the opening hours", "the way to the harbour", "the price of a bicycle", "the next train", "the menu"],
}
_OPENINGS = {
    "order": ["Please send me", "I would like to buy", "Put aside for me", "We need for the office", "Reserve"],
    "complaint": ["I am not happy with", "Once more I got", "It came with", "My neighbour laughed at", "I return"],
    "question": [
        "Could you tell me about",
        "What do you know of",
        "I wonder about",
        "Who can explain",
        "Is there news of",
    ],
}
_FILLINGS = [
    "since my sister visits us on Sunday",
    "because the old one is worn out",
    "although it rains and the road is long",
    "as we spoke about it last week on the telephone",
    "and I do not mind waiting until the evening",
    "for the children cannot talk of anything else",
    "if that is not too much trouble for you",
    "while the shop is still open",
]
_PLACES = ["a village by the sea", "an old mill", "a market square", "a mountain hut", "a railway station", "a garden"]
_SEASONS = ["spring", "summer", "autumn", "winter"]
_SENTENCES = [
    "In {season} the light falls low over {place}, and people walk slowly.",
    "Somebody has painted a door green, and a cat sleeps before it.",
    "There is a smell of bread and of wet stone.",
    "Children count the birds on the roof and lose count again.",
    "An old man mends a net and talks about the weather of {season}.",
    "At noon a bell rings, and for a while nobody speaks.",
    "Whoever comes to {place} for the first time wants to stay.",
    "In the evening lamps are lit one after another, and the windows shine.",
]


def label_row(generator: random.Random) -> dict[str, str]:
    """A message of 20 to 60 words under an instruction that all rows share; the answer is one word."""
    kind = generator.choice(sorted(_SUBJECTS))
    sentences = [
        f"{generator.choice(_OPENINGS[kind])} {generator.choice(_SUBJECTS[kind])}, {generator.choice(_FILLINGS)}."
        for _ in range(generator.randint(2, 5))
    ]
    return {
        "instruction": "Is this message an order, a complaint or a question? Answer with one word.",
        "input": " ".join(sentences),
        "output": kind,
    }


def answer_row(generator: random.Random) -> dict[str, str]:
    """A request of its own, and an answer of 40 to 90 words."""
    place, season = generator.choice(_PLACES), generator.choice(_SEASONS)
    chosen = generator.sample(_SENTENCES, generator.randint(4, 7))
    return {
        "instruction": f"Describe {place} in {season}.",
        "input": "",
        "output": " ".join(sentence.format(place=place, season=season) for sentence in chosen),
    }


ROW_KINDS: Mapping[str, Callable[[random.Random], dict[str, str]]] = {"labels": label_row, "answers": answer_row}


def write_rows(kind: str, path: Path, *, count: int, seed: int) -> Path:
    """Write rows of a kind as JSON lines; equal seeds give equal rows."""
    generator = random.Random(seed)
    rows = [ROW_KINDS[kind](generator) for _ in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
