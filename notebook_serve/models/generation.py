"""Text generation: prompts, generated sequences, streamed tokens and stopping."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: a function from tokens to text
Decode = Callable[[list[int]], str]
#: the tokenizer's text for bytes of an incomplete character
INCOMPLETE = "\ufffd"


@dataclass(frozen=True, slots=True)
class Piece:
    """One generated token and the text that it completes (often none)."""

    token: int
    text: str
    #: True for a special token, which is not text
    special: bool


@dataclass(frozen=True, slots=True)
class GeneratedSequence:
    """One generated sequence: its text and tokens, without the prompt."""

    #: the text, including the stop string if one was reached
    text: str
    #: the tokens, including the end token if there is one
    tokens: tuple[int, ...]
    #: the reason for the end: an end token, a stop string, or the length limit
    reason: Literal["end", "stop", "length"]


class Prompt:
    """An input for text generation that is answered with a list of `GeneratedSequence`.

    A bare text or chat has the answer of its pipeline instead. Generation ends at the first of the
    strings in `stops`. If `emit` is given, the worker thread calls it with each `Piece`, and the
    prompt runs alone.
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
        #: True once generation must end: the client disconnected or the request timed out
        self.over = False
        #: called by `end` while another process generates
        self.on_end: Callable[[], None] | None = None

    def end(self, _: object = None) -> None:
        """End generation after the current token; may be called from any thread."""
        self.over = True
        on_end = self.on_end
        if on_end is not None:
            on_end()

    def __str__(self) -> str:
        return str(self.inputs)


class IncrementalDecoder:
    """A decoder of tokens one by one; the returned parts join to the text of all tokens.

    A single token may be half a character or a word without its space. So the decoder compares the
    text of the last few tokens with and without the new one.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        #: begin and end of the tokens of the last part
        self._start = self._end = 0

    def add(self, token: int) -> str:
        """Return the text that `token` completes."""
        self._tokens.append(token)
        known = self._decode(self._tokens[self._start : self._end])
        text = self._decode(self._tokens[self._start :])
        if len(text) <= len(known) or text.endswith(INCOMPLETE):
            return ""
        self._start, self._end = self._end, len(self._tokens)
        return text[len(known) :]


class StopFilter:
    """A filter for text in parts that ends the text at the first stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        #: True once a stop string was found
        self.found = False

    def add(self, text: str) -> str:
        """Return the text that is final; hold back a possible beginning of a stop string."""
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
        """Return the text that was held back; call it after the last part."""
        rest, self._held = self._held, ""
        return rest


class GenerationWatch:
    """A stopping criterion for ``generate`` that streams tokens and ends finished rows.

    `prompts` holds the `Prompt` of each input row, or None for a bare text; `seen` is the number of
    tokens in a row at the start; `special` are the tokens that are not text.
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
        self._reads_tokens = any(prompt and (prompt.emit or prompt.stops) for prompt in prompts)

    def __call__(self, input_ids: Any, scores: Any, **options: Any) -> Any:
        """Return which rows are over. ``generate`` calls it after each token, with all rows."""
        import torch

        if not self._rows:
            # Several sequences of one prompt are adjacent rows.
            each = input_ids.shape[0] // len(self._prompts)
            self._rows = [
                _Row(prompt, self._decode) for prompt in self._prompts for _ in range(each)
            ]
        if self._reads_tokens:
            for row, tokens in zip(self._rows, input_ids[:, self._seen :].tolist(), strict=True):
                for token in tokens:
                    row.add(token, token in self._special)
            self._seen = input_ids.shape[1]
        return torch.tensor([row.over for row in self._rows], device=input_ids.device)


class _Row:
    """The generated tokens of one row."""

    def __init__(self, prompt: Prompt | None, decode: Decode) -> None:
        self._prompt = prompt
        self._decoder = IncrementalDecoder(decode)
        self._stop_filter = StopFilter(prompt.stops if prompt else ())

    def add(self, token: int, special: bool) -> None:
        """Decode one more token, filter it and emit it."""
        if self._prompt is None or not (self._prompt.emit or self._prompt.stops):
            return
        text = self._decoder.add(token)
        self._stop_filter.add(text)
        if self._prompt.emit is not None:
            self._prompt.emit(Piece(token, text, special))

    @property
    def over(self) -> bool:
        """True if generation of this row must end."""
        return self._stop_filter.found or (self._prompt is not None and self._prompt.over)


def trim_sequence(
    prompt: Prompt, tokens: Sequence[int], ends: Collection[int], decode: Decode
) -> GeneratedSequence:
    """Trim the `tokens` generated for `prompt`, and the padding after them, to the sequence.

    The sequence ends with the first of the tokens in `ends`, or at the first stop string.
    """
    count = next((at for at, token in enumerate(tokens, 1) if token in ends), len(tokens))
    stopped = None
    if prompt.stops:
        decoder, stop_filter = IncrementalDecoder(decode), StopFilter(prompt.stops)
        for at, token in enumerate(tokens[:count], 1):
            stop_filter.add(decoder.add(token))
            if stop_filter.found:
                count = stopped = at
                break
    kept = tokens[:count]
    ended = bool(kept) and kept[-1] in ends
    return GeneratedSequence(
        decode(list(kept)), tuple(kept), "stop" if stopped else "end" if ended else "length"
    )
