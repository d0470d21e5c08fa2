"""Pipelines of transformers as models: which is served how, and the text tasks themselves.

A pipeline's tokenizer must never be used by two threads at once: every call sets truncation and
padding on one shared object, and another thread then tokenises with them. So the desk's thread and
the worker's each have a copy of the pipeline with a tokenizer of its own, and the user's own
object, which a cell may call at any time, is touched by neither. The weights are shared.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any

from ..errors import InvalidInput
from .base import Prepared, check_one_input, next_alone
from .collation import Chunk, as_chunk, collation_for, in_lists
from .generation import Decode, Prompt, Watch, Written, written
from .parameters import parameters_of
from .pipeline_copy import is_message, private_copy, rejecting, resolve
from .tasks import TASKS

#: the pipelines that run through preprocess, collate, forward and postprocess, by class
TEXT_PIPELINES = {
    "FillMaskPipeline": "fill-mask",
    "TextClassificationPipeline": "text-classification",
    "TokenClassificationPipeline": "token-classification",
    "ZeroShotClassificationPipeline": "zero-shot-classification",
    "FeatureExtractionPipeline": "feature-extraction",
    "TextGenerationPipeline": "text-generation",
}
CHUNKED = {"token-classification", "zero-shot-classification"}
#: tasks that do nothing with a text but to tokenise it
TOKENISED = {"text-classification", "feature-extraction"}
#: tasks whose head may pick a row's last token by comparing with the pad token's id
POOLED = {"text-classification", "zero-shot-classification"}
#: why such a task is not batched
NO_PAD = "the model finds a text's end by its pad token, and its configuration names none"
#: settings of ``generate`` under which a row's result does not depend on the rows beside it, nor on
#: the padding before it; with any other a request runs alone
BATCHABLE_GENERATION = {
    "max_new_tokens",
    "min_new_tokens",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "num_return_sequences",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "transformers_version",
    "use_cache",
    "_from_model_config",
}
#: values that change nothing
NEUTRAL_GENERATION = {"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}


@dataclass(frozen=True, slots=True)
class Rows:
    """Where in the output of a batch's forward the rows of one item are."""

    batch: Mapping[str, Any]
    places: range
    #: tokens of the padded batch
    width: int

    def __reduce__(self) -> Any:
        return _rows, (self.batch, self.places.start, self.places.stop, self.width)


def _rows(batch: Mapping[str, Any], start: int, stop: int, width: int) -> Rows:
    return Rows(batch, range(start, stop), width)


class TextPipeline:
    """One of the six text tasks: tokenised on arrival, padded together, run as one forward.

    Answers equal ``pipe(x)`` for each input, whatever batch it rode in: rows are padded on the
    side where that changes nothing, and every output is cut back to its input's own length.
    """

    prepares = True
    accepts = frozenset({"text", "json"})

    def __init__(self, pipe: Any) -> None:
        self.task = TEXT_PIPELINES[type(pipe).__name__]
        self.name = f"{self.task}, {type(pipe.model).__name__}"
        self._reader = private_copy(pipe)
        if self.task in TOKENISED:
            self._reader.tokenizer = partial(in_lists, self._reader.tokenizer)
            self._runner = copy.copy(pipe)  # its forward needs no tokenizer, which takes memory
        else:
            self._runner = private_copy(pipe)
        # Parameters come as JSON text, so that equal ones are resolved once.
        self._reading = lru_cache(128)(partial(resolve, self._reader))
        self._running = lru_cache(128)(partial(resolve, self._runner))
        self._parameters = parameters_of(self.task, pipe._preprocess_params)
        self._longest = position_limit(pipe.model)
        self._collate = collation_for(pipe, "left" if self.task == "text-generation" else "right")
        self._poolable = self.task not in POOLED or pipe.model.config.pad_token_id is not None
        self.batched, self.why = self._poolable, TASKS[self.task].why if self._poolable else NO_PAD
        self._keys: frozenset[str] | None = None

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """A list is many inputs, except a chat, and a list of words that are one sentence."""
        if not isinstance(inputs, list):
            check_one_input(inputs)
            return None
        if self.task == "text-generation" and inputs and is_message(inputs[0]):
            return None
        words = bool(parameters.get("is_split_into_words"))
        return None if words and all(isinstance(word, str) for word in inputs) else inputs

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Tokenise one input with the desk's own tokenizer."""
        self._parameters.check(parameters)
        prompt = inputs if isinstance(inputs, Prompt) else None
        source = checked_input(self.task, prompt.inputs if prompt else inputs, parameters)
        key = json.dumps(parameters, sort_keys=True) if parameters else ""
        with rejecting(self.task):
            preprocess, forward, _ = self._reading(key)
            made = self._reader.preprocess(source, **preprocess)
            chunks = [as_chunk(chunk) for chunk in (made if self.task in CHUNKED else [made])]
        lengths = [chunk.length for chunk in chunks]
        if self._longest is not None and max(lengths) > self._longest:
            raise InvalidInput(
                f"the input is {max(lengths)} tokens long, and the model takes {self._longest}"
                + ('; send the parameter "truncation": true to cut it' * self._can_truncate)
            )
        group = key + self._apart(chunks[0], forward)
        if prompt is not None and prompt.emit is not None:
            _check_one_sequence(self._reader, forward)
            group = f"{key} [stream {next_alone()}]"
        return Prepared(chunks, sum(lengths), group, parameters, prompt or source, key)

    @property
    def writes(self) -> bool:
        """Whether it answers a `Prompt`, and can be heard while it writes."""
        return self.task == "text-generation"

    @property
    def _can_truncate(self) -> bool:
        return self.task in ("text-classification", "feature-extraction", "text-generation")

    def _apart(self, chunk: Chunk, forward: Mapping[str, Any]) -> str:
        """What keeps an input apart from others with the same parameters; mostly nothing."""
        apart = ""
        self._keys = self._keys or chunk.keys
        if chunk.keys != self._keys:
            apart += f" [{', '.join(sorted(chunk.keys))}]"
        if "attention_mask" not in chunk.rows:
            # The model could not tell padding from text: only equal lengths go together.
            apart += f" [length {chunk.length}]"
        if not self._poolable or not chunk.length:
            apart += f" [{next_alone()}]"
        if self.task == "text-generation" and generation_limits(self._reader, forward):
            apart += f" [{next_alone()}]"
        return apart

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """One forward for all chunks of all items; gives each item the place of its rows."""
        import torch

        chunks = [chunk for item in items for chunk in item.inputs]
        _, forward, _ = self._running(items[0].key)
        batch = self._collate(chunks)
        width = batch["input_ids"].shape[1]
        watch = self._watch(items, width, forward)
        if watch is not None:
            forward = {**forward, "stopping_criteria": [watch]}
        with torch.inference_mode():
            output = self._runner.forward(batch, **forward)
        if self.task == "feature-extraction":
            output = {"features": output[0]}
        # To cut the rows out is the desk's work: the next batch need not wait for it.
        ends = accumulate(len(item.inputs) for item in items)
        return [
            Rows(output, range(end - len(item.inputs), end), width)
            for item, end in zip(items, ends, strict=True)
        ]

    def _watch(
        self, items: Sequence[Prepared], width: int, forward: Mapping[str, Any]
    ) -> Watch | None:
        """What looks on while `items` are written, of which all prompts are `width` long."""
        prompts = [item.source if isinstance(item.source, Prompt) else None for item in items]
        if not any(prompts):
            return None
        if (_generation_settings(self._runner, forward).get("num_beams") or 1) > 1:
            return None  # beams change places from token to token
        special = frozenset(self._runner.tokenizer.all_special_ids)
        _, _, shown = self._running(items[0].key)
        return Watch(prompts, width, decoding(self._runner.tokenizer, shown), special)

    def _row(self, output: Mapping[str, Any], i: int, width: int, chunk: Chunk) -> dict[str, Any]:
        """Row `i` of a batch's output, as a batch of one that was never padded."""
        length = chunk.length
        if self.task == "text-generation":
            return self._generated(output, i, width - length, chunk)
        row: dict[str, Any] = {}
        for key, value in output.items():
            if value is None or isinstance(value, list):
                row[key] = value and value[i]
            elif hasattr(value, "shape"):
                row[key] = value[i : i + 1]
                per_token = value.ndim > 2 or (value.ndim > 1 and key in chunk.rows)
                if per_token and value.shape[1] == width:
                    row[key] = row[key][:, :length]
        return row

    def _generated(
        self, output: Mapping[str, Any], i: int, padding: int, chunk: Chunk
    ) -> dict[str, Any]:
        """Row `i` of what was generated, without the padding before it and after its end."""
        sequences = output["generated_sequence"][i : i + 1, :, padding:]
        ids = output["input_ids"]
        if ids is not None and ids.shape[0] > 1:
            written = _written(sequences[0, :, chunk.length :], self._ends)
            sequences = sequences[..., : chunk.length + written]
        return {
            "generated_sequence": sequences,
            "input_ids": None if ids is None else ids[i : i + 1, padding:],
            "prompt_text": output["prompt_text"][i],
        }

    @property
    def _ends(self) -> list[int]:
        ends = self._runner.model.generation_config.eos_token_id
        return [] if ends is None else ends if isinstance(ends, list) else [ends]

    def finish(self, item: Prepared, output: Rows) -> Any:
        """Postprocess one item's rows, in the shape that ``pipe(x)`` gives for it alone."""
        import torch

        _, _, postprocess = self._reading(item.key)
        with torch.inference_mode():
            rows = [
                self._row(output.batch, i, output.width, chunk)
                for i, chunk in zip(output.places, item.inputs, strict=True)
            ]
            if isinstance(item.source, Prompt):
                return self._of_prompt(item.source, rows[0], item.inputs[0].length, postprocess)
            if self.task in CHUNKED:
                answer = self._reader.postprocess(rows, **postprocess)
            elif self.task == "feature-extraction":
                answer = self._reader.postprocess((rows[0]["features"],), **postprocess)
            else:
                answer = self._reader.postprocess(rows[0], **postprocess)
        if self.task == "text-classification":
            # The pipeline wraps a text's only answer in a list, but not a pair's.
            alone = isinstance(item.source, str) and "top_k" not in item.parameters
            return [answer] if alone else answer
        if isinstance(answer, torch.Tensor):
            return answer.clone()  # an inference tensor is of little use to a caller
        words = self.task == "token-classification" and isinstance(item.source, list)
        return [answer] if words else answer

    def _of_prompt(
        self, prompt: Prompt, row: Mapping[str, Any], begin: int, shown: Mapping[str, Any]
    ) -> list[Written]:
        """What was written to a prompt, sequence by sequence, of which each has it in front."""
        sequences = row["generated_sequence"][0].tolist()
        decode, ends = decoding(self._reader.tokenizer, shown), self._ends
        return [written(prompt, tokens[begin:], ends, decode) for tokens in sequences]


def _generation_settings(pipe: Any, forward: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of ``generate`` in effect."""
    return {
        **pipe.model.generation_config.to_diff_dict(),
        **getattr(pipe, "_generate_kwargs", {}),
        **forward,
    }


def _check_one_sequence(pipe: Any, forward: Mapping[str, Any]) -> None:
    """Refuse to be heard while several sequences are written at once."""
    settings = _generation_settings(pipe, forward)
    for name in ("num_beams", "num_return_sequences"):
        if (settings.get(name) or 1) > 1:
            raise InvalidInput(f"one sequence can be streamed, not {settings[name]} ({name})")


def generation_limits(pipe: Any, forward: Mapping[str, Any]) -> set[str]:
    """The settings in effect under which a prompt must not share a batch."""
    return {
        name
        for name, value in _generation_settings(pipe, forward).items()
        if name not in BATCHABLE_GENERATION
        and value is not None
        and value is not False
        and value != NEUTRAL_GENERATION.get(name)
    }


def decoding(tokenizer: Any, shown: Mapping[str, Any]) -> Decode:
    """How tokens become text, by the keywords of a text-generation pipeline's postprocess."""
    skip = shown.get("skip_special_tokens")
    return partial(
        tokenizer.decode,
        skip_special_tokens=True if skip is None else skip,
        clean_up_tokenization_spaces=shown.get("clean_up_tokenization_spaces"),
    )


def _written(tokens: Any, ends: Sequence[int]) -> int:
    """How many of the new `tokens` (sequences x steps) were written before all had ended."""
    longest = 0
    for sequence in tokens.tolist():
        end = next((at for at, token in enumerate(sequence, 1) if token in ends), len(sequence))
        longest = max(longest, end)
    return longest


def position_limit(model: Any) -> int | None:
    """How many tokens the model can tell the places of; None if that has no limit.

    Read off the table of learned positions, because a configuration also names a maximum for
    models that work beyond it.
    """
    import torch

    for name, module in model.named_modules():
        if name.rpartition(".")[2] not in {"position_embeddings", "embed_positions", "wpe"}:
            continue
        if isinstance(module, torch.nn.Embedding):
            # Some tables begin with places that are never used.
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings - int(getattr(module, "offset", unused)))
    return None


def checked_input(task: str, inputs: Any, parameters: Mapping[str, Any]) -> Any:
    """`inputs` as the task's preprocess takes it, or `InvalidInput` saying what it takes."""
    if isinstance(inputs, str):
        return inputs
    if task == "text-classification" and isinstance(inputs, dict):
        strings = all(isinstance(value, str) for value in inputs.values())
        if strings and {"text"} <= set(inputs) <= {"text", "text_pair"}:
            return inputs
        raise InvalidInput('a pair must be {"text": "...", "text_pair": "..."}')
    if task == "text-generation" and isinstance(inputs, list) and all(map(is_message, inputs)):
        from transformers.pipelines.text_generation import Chat

        return Chat(inputs)
    split = task == "token-classification" and parameters.get("is_split_into_words")
    if split and inputs and isinstance(inputs, list) and all(isinstance(w, str) for w in inputs):
        return inputs
    raise InvalidInput(f"{task} takes a string, not {type(inputs).__name__}")
