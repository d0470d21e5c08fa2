"""The tree of exceptions: statuses, parents, messages and pickles."""

from __future__ import annotations

import pickle
import re

import pytest

from notebook_serve import errors
from notebook_serve.errors import (
    DeadlineExceeded,
    InvalidInput,
    LoaderFailed,
    NotReady,
    OptionError,
    QueueFull,
    RequestError,
    ServeError,
    StartError,
    Unavailable,
)
from notebook_serve.records import RequestRecord


def classes() -> dict[str, type[ServeError]]:
    """Return every error that the module defines, by name."""
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, ServeError)
    }


def parse_tree() -> dict[str, tuple[int, str | None]]:
    """Parse the tree in the module's docstring: the status and parent of each class."""
    tree: dict[str, tuple[int, str | None]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.fullmatch(r"([│├└─ ]*)(\w+) +(\d{3})  \S.*", line)
        if found:
            depth = len(found[1]) // 4
            tree[found[2]] = int(found[3]), above[depth - 1] if depth else None
            above[depth:] = [found[2]]
    return tree


def test_the_drawn_tree_names_every_class_and_no_other() -> None:
    """The tree in the docstring has exactly the classes that the module defines."""
    assert parse_tree().keys() == classes().keys()


@pytest.mark.parametrize("name", sorted(classes()))
def test_the_drawn_tree_is_the_real_one(name: str) -> None:
    """Each class has the status and the parent that the docstring draws."""
    status, parent = parse_tree()[name]
    kind = classes()[name]
    bases = [base.__name__ for base in kind.__bases__ if issubclass(base, ServeError)]

    assert kind.status == status
    assert bases == ([] if parent is None else [parent])


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("ServeError", 500),
        ("BadRequest", 400),
        ("Unauthorized", 401),
        ("BodyTooLarge", 413),
        ("UnsupportedMediaType", 415),
        ("InvalidInput", 422),
        ("ModelFailed", 500),
        ("QueueFull", 503),
        ("NotReady", 503),
        ("Stopping", 503),
        ("WorkerDead", 503),
        ("DeadlineExceeded", 504),
    ],
)
def test_an_error_knows_its_status(name: str, status: int) -> None:
    """The errors of requests have the statuses that the HTTP contract promises."""
    assert classes()[name].status == status


@pytest.mark.parametrize("kind", classes().values(), ids=classes().keys())
def test_the_message_is_the_first_argument(kind: type[ServeError]) -> None:
    """Raise each class with one sentence, and get it back unchanged."""
    with pytest.raises(ServeError) as caught:
        raise kind("it went wrong")

    assert caught.value.message == "it went wrong"
    assert str(caught.value) == "it went wrong"


def test_an_error_without_arguments_has_its_name_as_message() -> None:
    """No response has an empty message."""
    assert DeadlineExceeded().message == "DeadlineExceeded"


def test_unavailable_has_seconds_to_retry_after() -> None:
    """The default of ``retry_after`` is one second."""
    assert QueueFull("full", 7).retry_after == 7
    assert QueueFull("full").retry_after == 1


def test_an_option_error_is_a_value_error() -> None:
    """A wrong option can also be caught as a ``ValueError``."""
    with pytest.raises(ValueError, match="no such option"):
        raise OptionError("no such option")


@pytest.mark.parametrize(
    ("kind", "parent", "other"),
    [
        (InvalidInput, RequestError, Unavailable),
        (NotReady, Unavailable, RequestError),
        (LoaderFailed, StartError, RequestError),
        (OptionError, ServeError, RequestError),
    ],
)
def test_a_branch_is_caught_as_one(
    kind: type[ServeError], parent: type[ServeError], other: type[ServeError]
) -> None:
    """To catch a branch catches its leaves, and not those of another branch."""
    assert issubclass(kind, parent)
    assert not issubclass(kind, other)


def test_record_and_index_belong_to_one_error() -> None:
    """They are attributes of the instance, not of its class."""
    error, other = InvalidInput("no mask"), InvalidInput("no mask")
    error.index = 3
    error.record = RequestRecord(1, 0.0, None, 1.0, "invalid")

    assert (other.index, other.record) == (None, None)
    assert InvalidInput.index is None


def test_a_message_quotes_its_cause_if_it_has_its_words() -> None:
    """A message of this package may have a cause without quoting it."""

    def raised(sentence: str, cause: Exception | None) -> InvalidInput:
        with pytest.raises(InvalidInput) as caught:
            raise InvalidInput(sentence) from cause
        return caught.value

    assert raised("rejected: no such key", ValueError("no such key")).quotes_its_cause
    assert not raised("send base64", ValueError("incorrect padding")).quotes_its_cause
    assert not raised("send base64", None).quotes_its_cause


def test_an_error_survives_pickling() -> None:
    """An error from another process keeps its message, ``retry_after`` and index."""
    error = QueueFull("full", 9)
    error.index = 2

    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), copy.message, copy.retry_after, copy.index) == (QueueFull, "full", 9, 2)
