"""Text as a model writes it: what is asked for, what comes of it, and when nobody wants more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: how tokens become text
Decode = Callable[[list[int]], str]
#: what a tokenizer shows for bytes that are no character yet
INCOMPLETE = "\ufffd"


@dataclass(frozen=True, slots=True)
class Piece:
    """One token that was just written, and the text that it completes (often none)."""

    token: int
    text: str
    #: whether the token is a sign to the model rather than text
    special: bool


@dataclass(frozen=True, slots=True)
class Written:
    """One sequence that a model wrote: its text and tokens, without the prompt's."""

    #: with the text that it was to stop at, if it came to that
    text: str
    #: with the token that ended it, if one did
    tokens: tuple[int, ...]
    #: why there is no more: the model ended it, it came to a text to stop at, or it is long enough
    reason: Literal["end", "stop", "length"]


class Prompt:
    """An input for text generation that is answered by a list of `Written`, one per sequence.

    A text or a chat alone is answered as its pipeline would. What is written ends with the first of
    the texts in `stops`. `emit`, if given, is called on the worker's thread with each `Piece`; such
    a prompt runs alone.
    """

    def __init__(
        self,
        inputs: Any,
        stops: Sequence[str] = (),
        emit: Callable[[Piece], None] | None = None,
    ) -> None:
        self.inputs = inputs
        self.stops = tuple(stops)
        self.emit = emit
        #: whether nobody waits for it any more
        self.over = False
        #: called when that is so, while it is written to in another process
        self.told: Callable[[], None] | None = None

    def end(self, _: object = None) -> None:
        """Let nothing more be written; may be called from any thread."""
        self.over = True
        told = self.told
        if told is not None:
            told()

    def __str__(self) -> str:
        return str(self.inputs)


class Detokenizer:
    """Turns tokens into text one by one; the parts joined are the text of all.

    A token alone may be half a character or a word without its space, so the text of a few is
    compared with that of one more.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        #: where the tokens of the last part begin, and where they end
        self._start = self._end = 0

    def add(self, token: int) -> str:
        """The text that `token` completes."""
        self._tokens.append(token)
        known = self._decode(self._tokens[self._start : self._end])
        text = self._decode(self._tokens[self._start :])
        if len(text) <= len(known) or text.endswith(INCOMPLETE):
            return ""
        self._start, self._end = self._end, len(self._tokens)
        return text[len(known) :]


class Cut:
    """Text that comes in parts, up to the first of the strings at which it shall stop."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        #: whether one of the strings was there
        self.found = False

    def add(self, text: str) -> str:
        """What can be shown now, which is all but what may be the beginning of a stop."""
        if self.found:
            return ""
        held = self._held + text
        places = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return held[: min(places)]
        most = min(len(held), max(map(len, self._stops), default=1) - 1)
        suffixes = (held[len(held) - size :] for size in range(most, 0, -1))
        begun = (part for part in suffixes if any(stop.startswith(part) for stop in self._stops))
        self._held = next(begun, "")
        return held[: len(held) - len(self._held)]

    def end(self) -> str:
        """What was held back, once nothing more comes."""
        rest, self._held = self._held, ""
        return rest


class Watch:
    """A stopping criterion for ``generate``: passes on what is written, and says what is over.

    `prompts` has the prompt of each row that was given in, or None for one that nobody listens to;
    `seen` is how many tokens a row has already; `special` are those that are no text.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt | None],
        seen: int,
        decode: Decode,
        special: Collection[int],
    ) -> None:
        self._prompts = prompts
        self._seen = seen
        self._decode = decode
        self._special = special
        self._rows: list[_Row] = []
        self._listens = any(prompt and (prompt.emit or prompt.stops) for prompt in prompts)

    def __call__(self, input_ids: Any, scores: Any, **options: Any) -> Any:
        """Which rows are over; called after each token, with all rows so far."""
        import torch

        if not self._rows:
            # Several sequences of one prompt are as many rows beside each other.
            each = input_ids.shape[0] // len(self._prompts)
            self._rows = [
                _Row(prompt, self._decode) for prompt in self._prompts for _ in range(each)
            ]
        if self._listens:
            for row, tokens in zip(self._rows, input_ids[:, self._seen :].tolist(), strict=True):
                for token in tokens:
                    row.add(token, token in self._special)
            self._seen = input_ids.shape[1]
        return torch.tensor([row.over for row in self._rows], device=input_ids.device)


class _Row:
    """What is written to one prompt."""

    def __init__(self, prompt: Prompt | None, decode: Decode) -> None:
        self._prompt = prompt
        self._detokenizer = Detokenizer(decode)
        self._cut = Cut(prompt.stops if prompt else ())

    def add(self, token: int, special: bool) -> None:
        """Look at one more token."""
        if self._prompt is None or not (self._prompt.emit or self._prompt.stops):
            return
        text = self._detokenizer.add(token)
        self._cut.add(text)
        if self._prompt.emit is not None:
            self._prompt.emit(Piece(token, text, special))

    @property
    def over(self) -> bool:
        """Whether nothing more shall be written."""
        return self._cut.found or (self._prompt is not None and self._prompt.over)


def written(
    prompt: Prompt, tokens: Sequence[int], ends: Collection[int], decode: Decode
) -> Written:
    """What became of `prompt`, of which `tokens` were written and perhaps padding after them.

    The text is that of the tokens up to the first of `ends`, or the first text to stop at.
    """
    count = next((at for at, token in enumerate(tokens, 1) if token in ends), len(tokens))
    stopped = None
    if prompt.stops:
        detokenizer, cut = Detokenizer(decode), Cut(prompt.stops)
        for at, token in enumerate(tokens[:count], 1):
            cut.add(detokenizer.add(token))
            if cut.found:
                count = stopped = at
                break
    mine = tokens[:count]
    ended = bool(mine) and mine[-1] in ends
    return Written(
        decode(list(mine)), tuple(mine), "stop" if stopped else "end" if ended else "length"
    )
