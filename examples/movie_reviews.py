"""Film-review snippets with human ratings, from the source package of vaderSentiment (MIT). Knows no models.

Hutto & Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014.
"""

import html
import io
import json
import random
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "vaderSentiment==3.3.2"
INSTRUCTION = "Is this film review positive or negative?"
_ARCHIVE = "hutto_ICWSM_2014.tar.gz"
_RATINGS = "movieReviewSnippets_GroundTruth.txt"
_SHORTEST, _LONGEST, _CLEAREST = 25, 220, 0.8


@dataclass(frozen=True, slots=True)
class Review:
    """A snippet and whether people rated it well."""

    text: str
    is_positive: bool

    @property
    def label(self) -> str:
        return "positive" if self.is_positive else "negative"

    @property
    def question(self) -> str:
        """What the user says, in training and in chat alike."""
        return f"{INSTRUCTION}\n{self.text}"

    def row(self) -> dict[str, str]:
        """The alpaca row to train on."""
        return {"instruction": INSTRUCTION, "input": self.text, "output": self.label}


def fetch_reviews(directory: Path) -> list[Review]:
    """Every clearly rated review (mean rating beyond ±0.8 of ±4) of 25 to 220 characters, in the file's order.

    The package is fetched once, by pip, into `directory`. Raises subprocess.CalledProcessError when pip cannot.
    """
    archive = _fetch(directory)
    reviews: dict[str, Review] = {}
    for line in _ratings(archive).splitlines():
        _, rating, text = line.split("\t", 2)
        text = " ".join(html.unescape(text).split())
        if abs(float(rating)) >= _CLEAREST and _SHORTEST <= len(text) <= _LONGEST:
            reviews.setdefault(text, Review(text, is_positive=float(rating) > 0))
    return list(reviews.values())


def split(reviews: list[Review], *, held_out: int, seed: int = 0) -> tuple[list[Review], list[Review]]:
    """Shuffled training reviews, and `held_out` others with as many positive as negative ones.

    The training settings were chosen by the first `held_out` reviews of the shuffle, so those are trained on, and the
    next ones measure.
    """
    shuffled = random.Random(seed).sample(reviews, len(reviews))
    positive = [review for review in shuffled if review.is_positive]
    negative = [review for review in shuffled if not review.is_positive]
    half = held_out // 2
    test = positive[half : 2 * half] + negative[held_out - half : 2 * (held_out - half)]
    left = set(test)
    return [review for review in shuffled if review not in left], test


def write_rows(reviews: list[Review], path: Path) -> Path:
    """Write reviews as JSON lines for `hotprompt train`."""
    path.write_text(
        "".join(json.dumps(review.row(), ensure_ascii=False) + "\n" for review in reviews), encoding="utf-8"
    )
    return path


def _fetch(directory: Path) -> Path:
    found = sorted(directory.glob("vader*.tar.gz"))
    if not found:
        directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", PACKAGE]
        subprocess.run([*command, "--dest", str(directory)], check=True)
        found = sorted(directory.glob("vader*.tar.gz"))
    return found[0]


def _ratings(archive: Path) -> str:
    with tarfile.open(archive) as outer:
        inner_name = next(name for name in outer.getnames() if name.endswith(_ARCHIVE))
        inner_file = outer.extractfile(inner_name)
        assert inner_file is not None, f"{inner_name} is a file"
        with tarfile.open(fileobj=io.BytesIO(inner_file.read())) as inner:
            ratings_name = next(name for name in inner.getnames() if name.endswith(_RATINGS))
            ratings = inner.extractfile(ratings_name)
            assert ratings is not None, f"{ratings_name} is a file"
            return ratings.read().decode("utf-8")
