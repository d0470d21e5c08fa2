"""Checks of task and model names."""

from __future__ import annotations

from pathlib import Path

import pytest

from notebook_serve import OptionError
from notebook_serve.models.model_names import (
    DEMO,
    check_named,
    check_task,
    default_model,
    task_names,
)


def test_each_task_has_the_default_of_transformers_or_none() -> None:
    """All tasks of the installed version and their aliases are looked up."""
    names = {task: default_model(task) for task in task_names() if task != DEMO}
    assert names["fill-mask"] == "distilbert/distilroberta-base"
    assert names["ner"] == names["token-classification"]
    assert all("/" in name or not name for name in names.values())


@pytest.mark.parametrize("name", ["bert-base-uncased", "google-bert/bert-base-uncased", "a/b.c_d"])
def test_a_name_on_the_hub_is_taken_as_it_is(name: str) -> None:
    """The user named it, so it may be downloaded."""
    check_named("fill-mask", name)


@pytest.mark.parametrize("name", ["./x", "../x/y", "/x", "a/b/c", "x/", "~/no-such-folder", ""])
def test_no_other_text_is_a_name(name: str) -> None:
    """A folder that does not exist is rejected instead of looked up on the hub."""
    with pytest.raises(OptionError, match="must be a folder that exists or a name on the hub"):
        check_named("fill-mask", name)


def test_a_folder_must_have_a_model(tmp_path: Path) -> None:
    """A folder needs a ``config.json``."""
    with pytest.raises(OptionError, match=r"config\.json"):
        check_named("fill-mask", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    check_named("fill-mask", str(tmp_path))


def test_a_task_needs_a_model_and_the_demo_has_one() -> None:
    """The error suggests a model."""
    with pytest.raises(OptionError, match="use model='distilbert/distilroberta-base'"):
        check_named("fill-mask", None)
    check_named(DEMO, None)
    with pytest.raises(OptionError, match="must be left out for demo"):
        check_named(DEMO, "x")


@pytest.mark.parametrize("task", ["fill-mask", "ner", "sentiment-analysis", "demo"])
def test_tasks_and_aliases_are_known(task: str) -> None:
    """Aliases of transformers and ``demo`` are tasks too."""
    check_task(task)
    assert task in task_names()


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("fillmask", "did you mean fill-mask"),
        ("text-clasification", "text-classification"),
        ("qqqq", "tasks are "),
    ],
)
def test_an_unknown_task_is_rejected_with_the_nearest_names(wrong: str, hint: str) -> None:
    """The error names the value and the nearest names."""
    with pytest.raises(OptionError, match=hint) as caught:
        check_task(wrong)
    assert repr(wrong) in str(caught.value)
