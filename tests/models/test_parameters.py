from __future__ import annotations

import ast
import inspect
import math
import textwrap
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve.errors import InvalidInput
from notebook_serve.models.parameters import (
    ALIASES,
    MOST_LABELS,
    TASKS,
    Check,
    Parameters,
    either,
    mapping,
    number,
    one_of,
    parameters_of,
    text,
    texts,
    whole,
)

#: values that a parameter takes, and values that it does not
Tried = tuple[list[Any], list[Any]]
FLAG: Tried = ([True, False], [0, 1, "true", None])
SHARE: Tried = ([0, 1, 0.9], [-0.1, 1.1, math.nan, True])
GENERATION: dict[str, Tried] = {
    "max_new_tokens": ([1, 4096], [0, 4097, True, 1.5]),
    "min_new_tokens": ([0, 4096], [-1, 4097]),
    "max_length": ([1, 8192], [0, 8193]),
    "do_sample": FLAG,
    "temperature": ([0.001, 1, 0.7, 100], [0, 0.0, -1.0, 101, math.nan, math.inf, True, "1"]),
    "top_k": ([0, 50], [-1, True, 1.0]),
    "top_p": SHARE,
    "min_p": SHARE,
    "typical_p": SHARE,
    "repetition_penalty": ([0.01, 1.2, 100], [0, 0.001, 101]),
    "no_repeat_ngram_size": ([0, 1000], [-1, 1001]),
    "length_penalty": ([-100, 0, 100.0], [-101, 101]),
    "num_beams": ([1, 16], [0, 17, True]),
    "num_return_sequences": ([1, 16], [0, 17]),
    "early_stopping": ([True, False], ["never", 1]),
    "max_time": ([0, 1.5, 3600], [-1, 3601, math.inf]),
}
GENERATE_KWARGS: Tried = (
    [{}, {"max_new_tokens": 4096, "do_sample": True}],
    [{"max_new_tokens": 4097}, {"generation_config": {}}, {"assistant_model": "x"}, [], None],
)
WRITTEN: dict[str, Tried] = {
    "stop_sequence": (["\n", ["a"] * 16], [["a"] * 17, 5, "x" * 1001 + "y", []]),
    "return_full_text": FLAG,
    "return_tensors": FLAG,
    "clean_up_tokenization_spaces": FLAG,
    "skip_special_tokens": FLAG,
    "continue_final_message": FLAG,
}
CLASSIFICATION: dict[str, Tried] = {
    "top_k": ([1, 100_000], [0, 100_001, True, None]),
    "function_to_apply": (["sigmoid", "softmax", "none"], ["relu", None, 1]),
}
LABELS: dict[str, Tried] = {
    # No string here: these pipelines would take each of its letters for a label.
    "candidate_labels": ([["a"], ["a"] * MOST_LABELS], [[], ["a"] * (MOST_LABELS + 1), "a, b"]),
    "hypothesis_template": (["a photo of {}."], ["no braces", "{0.__class__}", None]),
}
#: for each task and parameter: values that it takes, and values that it does not
CASES: dict[str, dict[str, Tried]] = {
    "fill-mask": {
        "top_k": ([1, 5, 1000], [0, -1, 1001, 1.0, "5", True, None]),
        "targets": (
            ["good", ["good", "bad"]],
            [[], 5, ["good", 5], ["a"] * 1001, "x" * 10_001, ["x" * 9999] * 11],
        ),
        "tokenizer_kwargs": (
            [{}, {"truncation": True}, {"truncation": "only_first", "max_length": 8}],
            [{"padding": True}, {"max_length": 0}, {"truncation": 1}, [], "truncation", None],
        ),
    },
    "text-classification": {
        "top_k": ([1, None, 100_000], [0, 100_001, True, "all", 1.0]),
        "function_to_apply": (["sigmoid", "softmax", "none"], ["relu", None, ["none"], 1]),
        "truncation": ([True, False, "longest_first", "only_second"], [1, 0, "yes", None]),
        "max_length": ([1, 1_000_000], [0, 1_000_001, True, "8"]),
    },
    "token-classification": {
        "aggregation_strategy": (["none", "simple", "first", "average", "max"], ["last", None]),
        "ignore_labels": ([["O"], [], ["O", "B"]], ["O", [1], None, ["O"] * 1001]),
        "stride": ([0, 16], [-1, True, 1.0]),
        "is_split_into_words": ([True, False], [1, 0, "true", None]),
        "delimiter": ([" ", "", "x" * 100], ["x" * 101, 1, None]),
    },
    "zero-shot-classification": {
        "candidate_labels": (
            ["a", "a, b", ["a", "b"], ["a"] * MOST_LABELS, ",".join("a" * MOST_LABELS)],
            [[], ["a"] * (MOST_LABELS + 1), [1], None, 1, "x" * 10_001],
        ),
        "hypothesis_template": (
            ["This is {}.", "{}" + "x" * 998],
            ["{}" + "x" * 999, "no braces", None, 1],
        ),
        "multi_label": ([True, False], [1, None]),
    },
    "feature-extraction": {
        "truncation": ([True, "do_not_truncate"], [1, "some"]),
        "tokenize_kwargs": ([{"truncation": True, "max_length": 4}], [{"max_length": True}, 4]),
        "return_tensors": ([True, False], ["pt", 1]),
    },
    "text-generation": {
        **GENERATION,
        **WRITTEN,
        "return_text": FLAG,
        "add_special_tokens": FLAG,
        "prefix": (["", "x" * 10_000], ["x" * 10_001, None]),
        "handle_long_generation": (["hole"], ["cut", None, True]),
        "truncation": ([True, False], [1, "longest_first"]),
    },
    "any-to-any": {
        **WRITTEN,
        "max_new_tokens": GENERATION["max_new_tokens"],
        "generate_kwargs": GENERATE_KWARGS,
        "generation_mode": (["text", "image", "audio"], ["video", None]),
    },
    "image-text-to-text": {
        **WRITTEN,
        "max_new_tokens": GENERATION["max_new_tokens"],
        "generate_kwargs": GENERATE_KWARGS,
    },
    "text-to-audio": {"generate_kwargs": GENERATE_KWARGS},
    "automatic-speech-recognition": {
        "chunk_length_s": ([1, 30, 0.5 + 1, 3600], [0, 0.99, 3601, True, "30"]),
        "return_timestamps": ([True, False, "word", "char"], ["sentence", 1, None]),
        "return_language": FLAG,
        "max_new_tokens": GENERATION["max_new_tokens"],
        "generate_kwargs": (
            [{"language": "french", "task": "translate", "num_beams": 4}],
            [*GENERATE_KWARGS[1], {"task": "sing"}, {"language": 5}, {"language": "x" * 101}],
        ),
    },
    "audio-classification": CLASSIFICATION,
    "image-classification": CLASSIFICATION,
    "video-classification": {
        **CLASSIFICATION,
        "num_frames": ([1, 256], [0, 257, True]),
        "frame_sampling_rate": ([1, 1000], [0, 1001, 1.5]),
    },
    "zero-shot-audio-classification": LABELS,
    "zero-shot-image-classification": LABELS,
    "zero-shot-object-detection": {
        "candidate_labels": (["a", "a, b", ["a"]], [[], ["a"] * (MOST_LABELS + 1), None]),
        "threshold": SHARE,
        "top_k": ([1, 100_000], [0, 100_001, None]),
    },
    "object-detection": {"threshold": SHARE},
    "keypoint-matching": {"threshold": SHARE},
    "image-feature-extraction": {"pool": FLAG, "return_tensors": FLAG},
    "image-segmentation": {
        "subtask": (["panoptic", "instance", "semantic"], ["all", None, True]),
        "threshold": SHARE,
        "mask_threshold": SHARE,
        "overlap_mask_area_threshold": SHARE,
    },
    "mask-generation": {
        "points_per_batch": ([16, 128], [0, 15, 129, None]),
        "points_per_crop": ([16, 64], [15, 65, True]),
        "crops_n_layers": ([0, 2], [-1, 3]),
        "crop_overlap_ratio": ([0, 0.9], [-0.1, 1, math.nan]),
        "crop_n_points_downscale_factor": ([1, 4], [0, 5]),
        "pred_iou_thresh": SHARE,
        "stability_score_thresh": SHARE,
        "stability_score_offset": ([0, 1, 100], [-1, 101]),
        "mask_threshold": ([-100, 0.0, 100], [-101, 101, math.inf]),
        "max_hole_area": ([0, 1_000_000], [-1, 1_000_001]),
        "max_sprinkle_area": ([0, 1_000_000], [-1, 1_000_001]),
        "crops_nms_thresh": SHARE,
        "output_rle_mask": FLAG,
        "output_bboxes_mask": FLAG,
    },
    "document-question-answering": {
        "top_k": ([1, 1000], [0, 1001]),
        "max_answer_len": ([1, 1000], [0, 1001, "15"]),
        "handle_impossible_answer": FLAG,
    },
    "table-question-answering": {
        "sequential": FLAG,
        "truncation": ([True, False, "drop_rows_to_fit"], [1, "only_first", None]),
    },
    "depth-estimation": {},
    "decision": {},
}

GOOD = [(task, name, v) for task, names in CASES.items() for name in names for v in names[name][0]]
BAD = [(task, name, v) for task, names in CASES.items() for name in names for v in names[name][1]]


def shown(value: Any) -> str:
    """Return a short test id for a value."""
    return repr(value)[:20]


def test_every_parameter_of_every_task_is_tried() -> None:
    """The tables of this file name all allowed tasks and parameters, and no others."""
    assert {task: set(names) for task, names in CASES.items()} == {
        task: set(names) for task, names in TASKS.items()
    }


@pytest.mark.parametrize(("task", "name", "value"), GOOD, ids=shown)
def test_a_value_within_bounds_is_taken(task: str, name: str, value: Any) -> None:
    """The bounds are inclusive."""
    Parameters(task, TASKS[task]).check({name: value})


@pytest.mark.parametrize(("task", "name", "value"), BAD, ids=shown)
def test_a_value_out_of_bounds_is_rejected(task: str, name: str, value: Any) -> None:
    """The error names the parameter and the expectation."""
    with pytest.raises(InvalidInput, match=f"^the parameter '{name}' must be .+") as caught:
        Parameters(task, TASKS[task]).check({name: value})
    assert caught.value.status == 422


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["tok_p", "__class__", "", "trust_remote_code", "device"])
def test_an_unknown_parameter_is_rejected(task: str, name: str) -> None:
    """The error names the task, the unknown parameter and all known ones."""
    with pytest.raises(InvalidInput) as caught:
        Parameters(task, TASKS[task]).check({name: 1})

    known = ", ".join(sorted(TASKS[task])) or "none"
    said = caught.value.message
    assert said.startswith(f"{task} does not take the parameter {name!r}; ")
    assert said.lower().endswith(f"it takes: {known.lower()}")
    near = "top_p" if "top_p" in TASKS[task] else "top_k"
    if name == "tok_p" and near in TASKS[task]:
        assert f"did you mean {near!r}? It takes" in said


@pytest.mark.parametrize("task", TASKS)
def test_no_parameters_are_right_everywhere(task: str) -> None:
    """Parameters are optional."""
    Parameters(task, TASKS[task]).check({})


def test_one_wrong_parameter_among_good_ones_is_named() -> None:
    """The error names the invalid parameter."""
    with pytest.raises(
        InvalidInput, match=r"^the parameter 'top_p' must be a number from 0 to 1, got 2$"
    ):
        Parameters("text-generation", TASKS["text-generation"]).check(
            {"do_sample": True, "top_p": 2, "top_k": -1}
        )


def test_a_task_may_take_none() -> None:
    """The error says that the task takes none."""
    with pytest.raises(InvalidInput, match="f does not take the parameter 'a'; it takes: none"):
        Parameters("f", {}).check({"a": 1})


def test_a_required_parameter_must_be_given() -> None:
    """A missing parameter is an error; a given one is checked like any other."""
    needs = Parameters("zero-shot", {"labels": text(), "other": text()}, ("labels",))

    needs.check({"labels": "a"})
    with pytest.raises(InvalidInput, match=r"^zero-shot needs the parameter 'labels'$"):
        needs.check({"other": "a"})
    with pytest.raises(InvalidInput, match="'labels' must be a string"):
        needs.check({"labels": None})


def test_candidate_labels_are_required_unless_the_pipeline_has_them() -> None:
    """Every zero-shot task needs labels, from the request or from the pipeline."""
    for task in TASKS:
        needs = task.startswith("zero-shot")

        assert parameters_of(task).required == (("candidate_labels",) if needs else ())
        assert parameters_of(task, {"candidate_labels": ["a"]}).required == ()


def test_a_task_that_is_not_known_takes_no_parameter() -> None:
    """The effects of parameters on an unknown pipeline are unknown."""
    with pytest.raises(InvalidInput, match="dance does not take the parameter 'top_k'.*: none"):
        parameters_of("dance").check({"top_k": 1})


def test_a_task_is_known_by_its_other_names() -> None:
    """The aliases are those of transformers."""
    from transformers.pipelines import TASK_ALIASES

    for alias, task in ALIASES.items():
        assert TASK_ALIASES[alias] == task
        assert parameters_of(alias).allowed is TASKS[task]


# -- the library ----------------------------------------------------------------------------


def pipeline_class(task: str) -> Any:
    """Return the class of transformers for `task`."""
    import transformers
    from transformers.pipelines import SUPPORTED_TASKS

    if task not in SUPPORTED_TASKS:
        pytest.skip("this version of transformers has no such task")
    impl = SUPPORTED_TASKS[task]["impl"]
    return impl if isinstance(impl, type) else getattr(transformers, impl.rpartition(".")[2])


def accepted(kind: Any) -> set[str]:
    """Return the names that a pipeline class reads or passes on."""
    from transformers import GenerationConfig, PreTrainedTokenizerBase

    names: set[str] = set()
    for method in (kind._sanitize_parameters, kind.__call__):
        for name, parameter in inspect.signature(method).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD:
                names.add(name)
            elif name == "generate_kwargs":
                names |= set(vars(GenerationConfig()))
            elif name == "tokenizer_kwargs":
                names |= set(inspect.signature(PreTrainedTokenizerBase.__call__).parameters)
        # Some have only **kwargs, and look for: if "threshold" in kwargs.
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant):
                names.add(str(node.left.value))
    return names


@pytest.mark.parametrize("task", TASKS)
def test_the_pipeline_knows_what_is_allowed(task: str) -> None:
    """Each name in the table is a parameter of the pipeline."""
    assert set(TASKS[task]) <= accepted(pipeline_class(task))


@pytest.mark.parametrize("task", TASKS)
def test_nothing_allowed_opens_or_loads_or_waits(task: str) -> None:
    """Names that open files or URLs, load code or extend time limits are in no table."""
    dangerous = {"timeout", "num_workers", "batch_size", "tokenizer", "decoder", "images"}
    dangerous |= {"lang", "tesseract_config", "generation_config", "assistant_model", "inputs"}
    dangerous |= {"image_processor_kwargs", "processor_kwargs", "preprocess_params", "parameters"}

    assert not dangerous & set(TASKS[task])


def test_what_generates_is_known_to_generate() -> None:
    """The keys of ``generate_kwargs`` are settings of ``generate``, including Whisper's."""
    from transformers import GenerationConfig, WhisperForConditionalGeneration

    whisper = inspect.signature(WhisperForConditionalGeneration.generate).parameters

    assert set(GENERATION) <= set(vars(GenerationConfig()))
    assert {"language", "task"} <= set(whisper)


# -- checks -------------------------------------------------------------------------------

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-20, 20),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.text(max_size=3), st.integers(0, 3)), max_size=4),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(-3, 3), max_size=3),
)
PARTS: list[Check] = [whole(-3, 9), number(-1.5, 2), text(3), texts(2), one_of(1, "x", None)]


@settings(max_examples=100, deadline=None)
@given(anything)
def test_checks_take_just_what_they_say(value: Any) -> None:
    """A value passes a check exactly if it has the type and is within the bounds."""
    is_number = type(value) in (int, float)

    assert (whole(-3, 9)(value) == "") == (type(value) is int and -3 <= value <= 9)
    assert (number(-1.5, 2)(value) == "") == (is_number and -1.5 <= value <= 2)
    assert (text(3)(value) == "") == (type(value) is str and len(value) <= 3)
    assert (texts(2)(value) == "") == (
        type(value) is list and 1 <= len(value) <= 2 and all(type(v) is str for v in value)
    )
    assert (one_of(1, "x", None)(value) == "") == (
        value is None or (type(value), value) in [(int, 1), (str, "x")]
    )
    assert (mapping({"a": whole(0, 1), "b": whole(0, 2)})(value) == "") == (
        type(value) is dict
        and set(value) <= {"a", "b"}
        and 0 <= value.get("a", 0) <= 1
        and 0 <= value.get("b", 0) <= 2
    )


@settings(max_examples=100, deadline=None)
@given(anything, st.lists(st.sampled_from(PARTS), min_size=1, max_size=3))
def test_either_takes_what_one_of_its_checks_takes(value: Any, checks: list[Check]) -> None:
    """One passing check is enough; otherwise the error names all."""
    wrong = [check(value) for check in checks]

    assert either(*checks)(value) == ("" if "" in wrong else " or ".join(wrong))


@pytest.mark.parametrize(
    ("check", "value", "says"),
    [
        (whole(1, 9), 0, "a whole number from 1 to 9"),
        (number(0.001, 100), 0, "a number from 0.001 to 100"),
        (one_of(True, "a"), 1, "one of True, 'a'"),
        (text(5), 1, "a string of at most 5 characters"),
        (texts(5), [], "a list of 1 to 5 strings"),
        (either(text(5), texts(2)), 1, "a string of at most 5 characters or a list of 1 to 2"),
        (mapping({"b": text(), "a": text()}), {"c": 1}, "an object with some of the keys a, b"),
        (mapping({"a": whole(1, 2)}), {"a": 3}, "an object with a: a whole number from 1 to 2"),
    ],
)
def test_a_check_says_what_is_wanted(check: Check, value: Any, says: str) -> None:
    """The text of a check follows "must be" in an error."""
    assert check(value).startswith(says)


# -- what one request may cost ------------------------------------------------------------


def test_labels_in_one_string_are_counted_too() -> None:
    """The pipeline splits a string at commas, so the limit of labels applies to it too."""
    labels = ",".join("a" * (MOST_LABELS + 1))

    with pytest.raises(InvalidInput):
        Parameters("zero-shot", TASKS["zero-shot-classification"]).check(
            {"candidate_labels": labels}
        )


@pytest.mark.parametrize(
    "template",
    [
        "{:>1000000000}",
        "{0:01000000000d}",
        "{0.__class__}",
        "{0[0]}",
        "{!r:>999999999}",
        "{} {:>1000000000}",
        "{{}}",
        "{} {",
        "}{",
    ],
)
def test_a_template_has_plain_braces_only(template: str) -> None:
    """The template is passed to `str.format`: widths and attributes are rejected."""
    with pytest.raises(InvalidInput):
        Parameters("zero-shot", TASKS["zero-shot-classification"]).check(
            {"hypothesis_template": template}
        )
