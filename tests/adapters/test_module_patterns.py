"""Patterns match as PEFT's do, and none that is let in takes long."""

import time

import pytest
from peft.utils.other import get_pattern_key

from adapters.errors import AdapterInvalid, AdapterUnsupported
from adapters.module_patterns import MAX_PATTERN_LENGTH, MAX_PATTERNS, ModulePatterns

PATHS = ["model.layers.0.self_attn.q_proj", "model.layers.12.self_attn.v_proj", "model.layers.2.mlp.up_proj", "lm_head"]


@pytest.mark.parametrize(
    "pattern",
    [
        *["q_proj", "proj", "self_attn.q_proj", "f_attn.q_proj", "model.layers.0.self_attn.q_proj", "^q_proj"],
        *["^model.layers.0.self_attn.q_proj$", r"model\.layers\.\d+\.self_attn\.v_proj", r"layers\.[02]\..*", ".*"],
        *[
            "(q|v)_proj",
            r"layers\.\d+\.self_attn\.(q|v)_proj",
            "(model|x).*q_proj",
            "(?:q_proj|v_proj)",
            r"layers.1\d.self_attn.v_proj",
            ".+attn.q_proj",
            "lm-head",
            "lm_head",
            "",
        ],
    ],
)
def test_a_pattern_matches_as_pefts(pattern: str) -> None:
    patterns = ModulePatterns("rank_pattern", {pattern: 2})
    for path in PATHS:
        expected = 2 if get_pattern_key([pattern], path) == pattern else 1
        assert patterns.value_of(path, default=1) == expected


def test_the_first_that_matches_counts() -> None:
    patterns = ModulePatterns("alpha_pattern", {"q_proj": 2, "self_attn.q_proj": 3})
    assert [patterns.value_of(path, default=1) for path in PATHS] == [2, 1, 1, 1]


@pytest.mark.parametrize("pattern", ["(a+)+", "(.*)*", ".*.*", "(a|a)*", "a{1,9}", "a*", r"(\w+)", "(?=a)", "(", "é"])
def test_other_expressions_are_refused_by_name(pattern: str) -> None:
    with pytest.raises(AdapterUnsupported, match="'rank_pattern' has the pattern "):
        ModulePatterns("rank_pattern", {pattern: 2})


@pytest.mark.parametrize("pattern", ["[z-a]"])
def test_what_is_no_expression_is_refused(pattern: str) -> None:
    with pytest.raises(AdapterInvalid, match="'rank_pattern' has a bad pattern"):
        ModulePatterns("rank_pattern", {pattern: 2})


def test_their_number_and_length_are_bounded() -> None:
    with pytest.raises(AdapterInvalid, match="has 1025 patterns, over 1024"):
        ModulePatterns("rank_pattern", {f"m{number}": 2 for number in range(MAX_PATTERNS + 1)})
    with pytest.raises(AdapterUnsupported, match="has the pattern"):
        ModulePatterns("rank_pattern", {"a" * (MAX_PATTERN_LENGTH + 1): 2})


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (".*" + "." * 200 + "x", "a." * 64),
        (".a" * 40 + ".*x", "a" * 128),
        (".*(a|aa|aaa|aaaa|aaaaa|a.|aa.|aaa.|..|...)x", "a" * 128),
        (".+(a|.a|a.|..|.|a.a|.a.|...|....|a..a|a...)x", "a." * 64),
        ("(" + "|".join("a" * n for n in range(1, 16)) + ").*x", "a." * 64),
        ("." * 128, "a." * 64),
        ("[" + "a" * 250 + "]x", "a" * 128),
    ],
)
def test_a_hostile_pattern_and_path_take_milliseconds(pattern: str, path: str) -> None:
    patterns = ModulePatterns("rank_pattern", {pattern: 2})
    begun = time.process_time()
    for _ in range(10):
        patterns.value_of(path, default=1)
    assert time.process_time() - begun < 0.1


@pytest.mark.parametrize("pattern", ["(a|aa|aaa)" * 25 + "x", "(a|b)(c|d)", "(" + "|".join("a" * 17) + ")", "(a.*|b)"])
def test_what_multiplies_is_refused(pattern: str) -> None:
    with pytest.raises(AdapterUnsupported, match="has the pattern"):
        ModulePatterns("rank_pattern", {pattern: 2})


def test_expressions_are_few() -> None:
    ModulePatterns("rank_pattern", {f"m{number}.*": 2 for number in range(16)})
    with pytest.raises(AdapterUnsupported, match="has 17 patterns with"):
        ModulePatterns("rank_pattern", {f"m{number}.*": 2 for number in range(17)})
