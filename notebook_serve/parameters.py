"""What a request may ask of a task: each parameter by name, with its type and bounds.

An allow-list, because unknown keywords travel deep into tokenizers and ``generate``, where some
are silently swallowed and others could hold the machine or load code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InvalidInput

#: most new tokens, sequences, beams and labels that one request may ask for
MOST_NEW_TOKENS, MOST_SEQUENCES, MOST_LABELS = 4096, 16, 100

#: a check: gives what is wrong with a value, in words that follow "must be", or an empty string
Check = Callable[[Any], str]


def whole(low: int, high: int) -> Check:
    """A whole number from `low` to `high`."""

    def check(value: Any) -> str:
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return "" if fits else f"a whole number from {low} to {high}"

    return check


def number(low: float, high: float) -> Check:
    """A number from `low` to `high`."""

    def check(value: Any) -> str:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        return "" if fits and low <= value <= high else f"a number from {low:g} to {high:g}"

    return check


def one_of(*choices: Any) -> Check:
    """One of some values, of the same type (``True`` is not 1)."""

    def check(value: Any) -> str:
        fits = any(type(value) is type(choice) and value == choice for choice in choices)
        return "" if fits else "one of " + ", ".join(repr(choice) for choice in choices)

    return check


def text(most: int = 10_000) -> Check:
    """A string of at most `most` characters."""

    def check(value: Any) -> str:
        fits = isinstance(value, str) and len(value) <= most
        return "" if fits else f"a string of at most {most} characters"

    return check


def texts(most: int) -> Check:
    """A list of 1 to `most` strings."""

    def check(value: Any) -> str:
        fits = isinstance(value, (list, tuple)) and 1 <= len(value) <= most
        fits = fits and not any(map(text(), value))
        return "" if fits else f"a list of 1 to {most} strings"

    return check


def template(value: Any) -> str:
    """A check for text that goes to `str.format`: with plain ``{}`` in it, and no other braces."""
    plain = isinstance(value, str) and len(value) <= 1000 and "{}" in value
    # A width such as {:>1000000000} would take gigabytes, and {0.x} reads attributes.
    return "" if plain and not set("{}") & set(value.replace("{}", "")) else TEMPLATE


TEMPLATE = "a string of at most 1000 characters with {} for the label, and no other braces"


def labels(value: Any) -> str:
    """A check for candidate labels: a list of them, or one string, with commas between them."""
    if isinstance(value, str) and value.count(",") < MOST_LABELS:
        return text()(value)
    return texts(MOST_LABELS)(value)


def either(*checks: Check) -> Check:
    """Whatever passes one of `checks`."""

    def check(value: Any) -> str:
        wrong = [one(value) for one in checks]
        return "" if "" in wrong else " or ".join(wrong)

    return check


def mapping(allowed: Mapping[str, Check]) -> Check:
    """An object with some of the `allowed` keys."""

    def check(value: Any) -> str:
        if not isinstance(value, dict) or not set(value) <= set(allowed):
            return "an object with some of the keys " + ", ".join(sorted(allowed))
        wrong = [f"{key}: {allowed[key](value[key])}" for key in value if allowed[key](value[key])]
        return "an object with " + "; ".join(wrong) if wrong else ""

    return check


FLAG = one_of(True, False)
NOTHING = one_of(None)
LENGTH = whole(1, 1_000_000)
TRUNCATION: dict[str, Check] = {
    "truncation": one_of(
        True, False, "longest_first", "only_first", "only_second", "do_not_truncate"
    ),
    "max_length": LENGTH,
}


@dataclass(frozen=True)
class Parameters:
    """The parameters that a task takes."""

    task: str
    allowed: Mapping[str, Check]
    #: those without which the task cannot run, unless the pipeline was made with them
    required: tuple[str, ...] = ()

    def check(self, given: Mapping[str, Any]) -> None:
        """Raise `InvalidInput`, naming the first parameter that the task does not take so."""
        for name, value in given.items():
            if name not in self.allowed:
                known = ", ".join(sorted(self.allowed)) or "none"
                raise InvalidInput(
                    f"{self.task} does not take the parameter {name!r}; it takes: {known}"
                )
            wrong = self.allowed[name](value)
            if wrong:
                raise InvalidInput(f"the parameter {name!r} must be {wrong}")
        for name in self.required:
            if name not in given:
                raise InvalidInput(f"{self.task} needs the parameter {name!r}")


TASKS: dict[str, dict[str, Check]] = {
    "fill-mask": {
        "top_k": whole(1, 1000),
        "targets": either(text(), texts(1000)),
        "tokenizer_kwargs": mapping(TRUNCATION),
    },
    "text-classification": {
        "top_k": either(whole(1, 100_000), NOTHING),
        "function_to_apply": one_of("sigmoid", "softmax", "none"),
        **TRUNCATION,
    },
    "token-classification": {
        "aggregation_strategy": one_of("none", "simple", "first", "average", "max"),
        "ignore_labels": either(texts(1000), one_of([])),
        "stride": whole(0, 1_000_000),
        "is_split_into_words": FLAG,
        "delimiter": text(100),
    },
    "zero-shot-classification": {
        "candidate_labels": labels,
        "hypothesis_template": template,
        "multi_label": FLAG,
    },
    "feature-extraction": {
        "truncation": TRUNCATION["truncation"],
        "tokenize_kwargs": mapping(TRUNCATION),
        "return_tensors": FLAG,
    },
    "text-generation": {
        "max_new_tokens": whole(1, MOST_NEW_TOKENS),
        "min_new_tokens": whole(0, MOST_NEW_TOKENS),
        "max_length": whole(1, 1_000_000),
        "do_sample": FLAG,
        "temperature": number(1e-3, 100),
        "top_k": whole(0, 1_000_000),
        "top_p": number(0, 1),
        "min_p": number(0, 1),
        "typical_p": number(0, 1),
        "repetition_penalty": number(0.01, 100),
        "no_repeat_ngram_size": whole(0, 1000),
        "length_penalty": number(-100, 100),
        "num_beams": whole(1, MOST_SEQUENCES),
        "num_return_sequences": whole(1, MOST_SEQUENCES),
        "early_stopping": FLAG,
        "max_time": number(0, 3600),
        "stop_sequence": either(text(1000), texts(16)),
        "return_full_text": FLAG,
        "return_text": FLAG,
        "return_tensors": FLAG,
        "clean_up_tokenization_spaces": FLAG,
        "skip_special_tokens": FLAG,
        "add_special_tokens": FLAG,
        "continue_final_message": FLAG,
        "prefix": text(),
        "handle_long_generation": one_of("hole"),
        "truncation": FLAG,
    },
}
