"""Parameters that requests may set for each task, with their types and bounds.

This is an allow-list: tokenizers and ``generate`` ignore some unknown keywords silently, and others
could block the machine or load code.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput
from ..validation.option_hints import short

#: most new tokens, sequences or beams, and labels of one request
MOST_NEW_TOKENS, MOST_SEQUENCES, MOST_LABELS = 4096, 16, 100

#: most characters of all the strings in a list
MOST_CHARACTERS = 100_000

#: a check returns an empty string, or the expectation that a value fails: words after "must be"
Check = Callable[[Any], str]


def whole(low: int, high: int) -> Check:
    """Return a check for a whole number from `low` to `high`."""

    def check(value: Any) -> str:
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return "" if fits else f"a whole number from {low} to {high}"

    return check


def number(low: float, high: float) -> Check:
    """Return a check for a number from `low` to `high`."""

    def check(value: Any) -> str:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        return "" if fits and low <= value <= high else f"a number from {low:g} to {high:g}"

    return check


def one_of(*choices: Any) -> Check:
    """Return a check for one of `choices`, by value and type (``True`` is not 1)."""

    def check(value: Any) -> str:
        fits = any(type(value) is type(choice) and value == choice for choice in choices)
        return "" if fits else "one of " + ", ".join(repr(choice) for choice in choices)

    return check


def text(most: int = 10_000) -> Check:
    """Return a check for a string of at most `most` characters."""

    def check(value: Any) -> str:
        fits = isinstance(value, str) and len(value) <= most
        return "" if fits else f"a string of at most {most} characters"

    return check


def texts(most: int, longest: int = 10_000) -> Check:
    """Return a check for 1 to `most` strings of at most `longest` characters, 100,000 in total."""

    def check(value: Any) -> str:
        fits = isinstance(value, (list, tuple)) and 1 <= len(value) <= most
        fits = fits and not any(map(text(longest), value))
        fits = fits and sum(map(len, value)) <= MOST_CHARACTERS
        each = f"strings of at most {longest} characters, {MOST_CHARACTERS} in total"
        return "" if fits else f"a list of 1 to {most} {each}"

    return check


def template(value: Any) -> str:
    """Check a text for `str.format`: it must hold plain ``{}`` and no other braces."""
    plain = isinstance(value, str) and len(value) <= 1000 and "{}" in value
    # A width such as {:>1000000000} would take gigabytes, and {0.x} reads attributes.
    return "" if plain and not set("{}") & set(value.replace("{}", "")) else TEMPLATE


TEMPLATE = "a string of at most 1000 characters with {} for the label, and no other braces"


def labels(value: Any) -> str:
    """Check candidate labels: a list, or one string with commas between them."""
    if isinstance(value, str) and value.count(",") < MOST_LABELS:
        return text()(value)
    return texts(MOST_LABELS)(value)


def either(*checks: Check) -> Check:
    """Return a check that passes if one of `checks` does."""

    def check(value: Any) -> str:
        wrong = [one(value) for one in checks]
        return "" if "" in wrong else " or ".join(wrong)

    return check


def mapping(allowed: Mapping[str, Check]) -> Check:
    """Return a check for an object with some of the `allowed` keys."""

    def check(value: Any) -> str:
        if not isinstance(value, dict) or not set(value) <= set(allowed):
            return "an object with some of the keys " + ", ".join(sorted(allowed))
        wrong = [f"{key}: {allowed[key](value[key])}" for key in value if allowed[key](value[key])]
        return "an object with " + "; ".join(wrong) if wrong else ""

    return check


FLAG = one_of(True, False)
NOTHING = one_of(None)
LENGTH = whole(1, 1_000_000)
SHARE = number(0, 1)
#: stop strings; few and short, because each token is compared with all of them
STOP = either(text(200), texts(16, 200))
FUNCTION = one_of("sigmoid", "softmax", "none")
TRUNCATION: dict[str, Check] = {
    "truncation": one_of(
        True, False, "longest_first", "only_first", "only_second", "do_not_truncate"
    ),
    "max_length": LENGTH,
}

GENERATION: dict[str, Check] = {
    "max_new_tokens": whole(1, MOST_NEW_TOKENS),
    "min_new_tokens": whole(0, MOST_NEW_TOKENS),
    # This includes the prompt and bounds the new tokens.
    "max_length": whole(1, 2 * MOST_NEW_TOKENS),
    "do_sample": FLAG,
    "temperature": number(1e-3, 100),
    "top_k": whole(0, 1_000_000),
    "top_p": SHARE,
    "min_p": SHARE,
    "typical_p": SHARE,
    "repetition_penalty": number(0.01, 100),
    "no_repeat_ngram_size": whole(0, 1000),
    "length_penalty": number(-100, 100),
    "num_beams": whole(1, MOST_SEQUENCES),
    "num_return_sequences": whole(1, MOST_SEQUENCES),
    "early_stopping": FLAG,
    "max_time": number(0, 3600),
}
#: formats of the generated text
WRITTEN: dict[str, Check] = {
    "stop_sequence": STOP,
    "return_full_text": FLAG,
    "return_tensors": FLAG,
    "clean_up_tokenization_spaces": FLAG,
    "skip_special_tokens": FLAG,
    "continue_final_message": FLAG,
}
CLASSIFICATION: dict[str, Check] = {"top_k": whole(1, 100_000), "function_to_apply": FUNCTION}


@dataclass(frozen=True)
class Parameters:
    """Parameters that a task takes."""

    task: str
    allowed: Mapping[str, Check]
    #: parameters that every request must set
    required: tuple[str, ...] = ()
    #: True if any other parameter is allowed too
    others: bool = False

    def check(self, given: Mapping[str, Any]) -> None:
        """Raise `InvalidInput` for the first parameter that is unknown, invalid or missing."""
        for name, value in given.items():
            if name not in self.allowed and self.others:
                continue
            if name not in self.allowed:
                raise InvalidInput(self._unknown(name))
            wrong = self.allowed[name](value)
            if wrong:
                raise InvalidInput(f"the parameter {name!r} must be {wrong}, got {short(value)}")
        for name in self.required:
            if name not in given:
                raise InvalidInput(f"{self.task} needs the parameter {name!r}")

    def _unknown(self, name: str) -> str:
        known = ", ".join(sorted(self.allowed)) or "none"
        near = difflib.get_close_matches(str(name).lower(), self.allowed, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}? It" if near else "it"
        return f"{self.task} does not take the parameter {name!r}; {hint} takes: {known}"


TASKS: dict[str, dict[str, Check]] = {
    "fill-mask": {
        "top_k": whole(1, 1000),
        "targets": either(text(), texts(1000)),
        "tokenizer_kwargs": mapping(TRUNCATION),
    },
    "text-classification": {
        "top_k": either(whole(1, 100_000), NOTHING),
        "function_to_apply": FUNCTION,
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
        **GENERATION,
        **WRITTEN,
        "return_text": FLAG,
        "add_special_tokens": FLAG,
        "prefix": text(),
        "handle_long_generation": one_of("hole"),
        "truncation": FLAG,
    },
    "any-to-any": {
        **WRITTEN,
        "max_new_tokens": GENERATION["max_new_tokens"],
        "generate_kwargs": mapping(GENERATION),
        "generation_mode": one_of("text", "image", "audio"),
    },
    "image-text-to-text": {
        **WRITTEN,
        "max_new_tokens": GENERATION["max_new_tokens"],
        "generate_kwargs": mapping(GENERATION),
    },
    "text-to-audio": {"generate_kwargs": mapping(GENERATION)},
    "automatic-speech-recognition": {
        # No stride: one almost as long as the chunk would make thousands of chunks.
        "chunk_length_s": number(1, 3600),
        "return_timestamps": one_of(True, False, "word", "char"),
        "return_language": FLAG,
        "max_new_tokens": GENERATION["max_new_tokens"],
        "generate_kwargs": mapping(
            {**GENERATION, "language": text(100), "task": one_of("transcribe", "translate")}
        ),
    },
    "audio-classification": CLASSIFICATION,
    "image-classification": CLASSIFICATION,
    "video-classification": {
        **CLASSIFICATION,
        "num_frames": whole(1, 256),
        "frame_sampling_rate": whole(1, 1000),
    },
    "zero-shot-audio-classification": {
        "candidate_labels": texts(MOST_LABELS),
        "hypothesis_template": template,
    },
    "zero-shot-image-classification": {
        "candidate_labels": texts(MOST_LABELS),
        "hypothesis_template": template,
    },
    "zero-shot-object-detection": {
        "candidate_labels": labels,
        "threshold": SHARE,
        "top_k": whole(1, 100_000),
    },
    "object-detection": {"threshold": SHARE},
    "keypoint-matching": {"threshold": SHARE},
    "image-feature-extraction": {"pool": FLAG, "return_tensors": FLAG},
    "image-segmentation": {
        "subtask": one_of("panoptic", "instance", "semantic"),
        "threshold": SHARE,
        "mask_threshold": SHARE,
        "overlap_mask_area_threshold": SHARE,
    },
    "mask-generation": {
        # Few points per batch make many forward passes, many make large ones. Each layer has four
        # times the crops of the previous one, and the points of a crop count squared.
        "points_per_batch": whole(16, 128),
        "points_per_crop": whole(16, 64),
        "crops_n_layers": whole(0, 2),
        "crop_overlap_ratio": number(0, 0.9),
        "crop_n_points_downscale_factor": whole(1, 4),
        "pred_iou_thresh": SHARE,
        "stability_score_thresh": SHARE,
        "stability_score_offset": number(0, 100),
        "mask_threshold": number(-100, 100),
        "max_hole_area": number(0, 1_000_000),
        "max_sprinkle_area": number(0, 1_000_000),
        "crops_nms_thresh": SHARE,
        "output_rle_mask": FLAG,
        "output_bboxes_mask": FLAG,
    },
    "document-question-answering": {
        "top_k": whole(1, 1000),
        "max_answer_len": whole(1, 1000),
        "handle_impossible_answer": FLAG,
    },
    "table-question-answering": {
        "sequential": FLAG,
        "truncation": one_of(True, False, "drop_rows_to_fit", "do_not_truncate"),
    },
    "depth-estimation": {},
    "decision": {},
}
#: other names of tasks
ALIASES = {
    "ner": "token-classification",
    "sentiment-analysis": "text-classification",
    "text-to-speech": "text-to-audio",
}


def parameters_of(task: str, made_with: Collection[str] = ()) -> Parameters:
    """Return the parameters of `task`; those in `made_with` are set in the pipeline already."""
    allowed = TASKS.get(ALIASES.get(task, task), {})
    needed = {"candidate_labels"} & set(allowed) - set(made_with)
    return Parameters(task, allowed, tuple(needed))
