"""The six text tasks: tokenised on arrival, padded together, run as one forward pass.

Two threads must never share a tokenizer: each call sets truncation and padding on the object, and
another thread would then tokenise with these settings. So the pre- and postprocessing thread and
the worker thread each have a copy of the pipeline with its own tokenizer. Neither uses the user's
pipeline, which a cell may call at any time. The weights are shared.
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
from .base import Prepared, check_one_input, unique_group_name
from .collation import Chunk, make_chunk, make_collation, tokenize_to_lists
from .generation import Decode, GeneratedSequence, GenerationWatch, Prompt, trim_sequence
from .parameters import parameters_of
from .pipeline_copy import copy_for_thread, is_message, rejecting, resolve_parameters
from .tasks import TASKS

#: pipeline classes with the steps preprocess, collate, forward and postprocess
TEXT_PIPELINES = {
    "FillMaskPipeline": "fill-mask",
    "TextClassificationPipeline": "text-classification",
    "TokenClassificationPipeline": "token-classification",
    "ZeroShotClassificationPipeline": "zero-shot-classification",
    "FeatureExtractionPipeline": "feature-extraction",
    "TextGenerationPipeline": "text-generation",
}
#: tasks with several chunks for one input
CHUNKED = {"token-classification", "zero-shot-classification"}
#: tasks that only tokenise in preprocess
TOKENISED = {"text-classification", "feature-extraction"}
#: tasks with a head that may locate the last token of a row by the pad token's id
POOLED = {"text-classification", "zero-shot-classification"}
#: reason not to batch these tasks
NO_PAD = "the model locates the end of a text by its pad token, and its configuration has none"
#: settings of ``generate`` under which a row depends neither on the other rows nor on its padding;
#: with any other setting a request runs alone
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
#: values that switch a setting off
NEUTRAL_GENERATION = {"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one item in the output of a batch."""

    batch: Mapping[str, Any]
    places: range
    #: tokens of a padded row
    width: int

    def __reduce__(self) -> Any:
        return _make_rows, (self.batch, self.places.start, self.places.stop, self.width)


def _make_rows(batch: Mapping[str, Any], start: int, stop: int, width: int) -> Rows:
    return Rows(batch, range(start, stop), width)


class TextPipeline:
    """A pipeline of one of the six text tasks.

    Answers equal ``pipe(x)`` for each input in every batch: rows are padded on the side where
    padding has no effect, and every output is cut back to the length of its input.
    """

    prepares = True
    accepts = frozenset({"text", "json"})

    def __init__(self, pipe: Any) -> None:
        self.task = TEXT_PIPELINES[type(pipe).__name__]
        self.name = f"{self.task}, {type(pipe.model).__name__}"
        self._reader = copy_for_thread(pipe)
        if self.task in TOKENISED:
            self._reader.tokenizer = partial(tokenize_to_lists, self._reader.tokenizer)
            self._runner = copy.copy(pipe)  # its forward needs no tokenizer: save the memory
        else:
            self._runner = copy_for_thread(pipe)
        # Parameters are JSON text, so that equal ones hit the cache.
        self._reader_keywords = lru_cache(128)(partial(resolve_parameters, self._reader))
        self._runner_keywords = lru_cache(128)(partial(resolve_parameters, self._runner))
        self._parameters = parameters_of(self.task, pipe._preprocess_params)
        self._longest = position_limit(pipe.model)
        self._collate = make_collation(pipe, "left" if self.task == "text-generation" else "right")
        self._poolable = self.task not in POOLED or pipe.model.config.pad_token_id is not None
        self.batched, self.why = self._poolable, TASKS[self.task].why if self._poolable else NO_PAD
        self._keys: frozenset[str] | None = None

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """Return the items of a list, except of a chat or of the words of one sentence."""
        if not isinstance(inputs, list):
            check_one_input(inputs)
            return None
        if self.task == "text-generation" and inputs and is_message(inputs[0]):
            return None
        words = bool(parameters.get("is_split_into_words"))
        return None if words and all(isinstance(word, str) for word in inputs) else inputs

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Tokenise one input with the tokenizer of this thread."""
        self._parameters.check(parameters)
        prompt = inputs if isinstance(inputs, Prompt) else None
        source = check_input(self.task, prompt.inputs if prompt else inputs, parameters)
        key = json.dumps(parameters, sort_keys=True) if parameters else ""
        with rejecting(self.task):
            preprocess, forward, _ = self._reader_keywords(key)
            encoded = self._reader.preprocess(source, **preprocess)
            parts = encoded if self.task in CHUNKED else [encoded]
            chunks = [make_chunk(part) for part in parts]
        lengths = [chunk.length for chunk in chunks]
        if self._longest is not None and max(lengths) > self._longest:
            raise InvalidInput(
                f"the input has {max(lengths)} tokens, and the model takes at most {self._longest}"
                + ('; send the parameter "truncation": true to cut it' * self._can_truncate)
            )
        group = key + self._group_suffix(chunks[0], forward)
        if prompt is not None and prompt.emit is not None:
            _check_one_sequence(self._reader, forward)
            group = f"{key} [stream {unique_group_name()}]"
        return Prepared(chunks, sum(lengths), group, parameters, prompt or source, key)

    @property
    def writes(self) -> bool:
        """True if the model answers a `Prompt` and can stream its tokens."""
        return self.task == "text-generation"

    @property
    def _can_truncate(self) -> bool:
        return self.task in ("text-classification", "feature-extraction", "text-generation")

    def _group_suffix(self, chunk: Chunk, forward: Mapping[str, Any]) -> str:
        """Return the conditions, apart from parameters, for sharing a batch; mostly none."""
        suffix = ""
        self._keys = self._keys or chunk.keys
        if chunk.keys != self._keys:
            suffix += f" [{', '.join(sorted(chunk.keys))}]"
        if "attention_mask" not in chunk.rows:
            # Without a mask the model reads padding as text: only equal lengths share a batch.
            suffix += f" [length {chunk.length}]"
        if not self._poolable or not chunk.length:
            suffix += f" [{unique_group_name()}]"
        if self.task == "text-generation" and solo_settings(self._reader, forward):
            suffix += f" [{unique_group_name()}]"
        return suffix

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Run one forward pass for all chunks of all items; return the `Rows` of each item."""
        import torch

        chunks = [chunk for item in items for chunk in item.inputs]
        _, forward, _ = self._runner_keywords(items[0].key)
        batch = self._collate(chunks)
        width = batch["input_ids"].shape[1]
        watch = self._watch(items, width, forward)
        if watch is not None:
            forward = {**forward, "stopping_criteria": [watch]}
        with torch.inference_mode():
            output = self._runner.forward(batch, **forward)
        if self.task == "feature-extraction":
            output = {"features": output[0]}
        # `finish` cuts the rows out on its own thread, so that the next batch can start.
        ends = accumulate(len(item.inputs) for item in items)
        return [
            Rows(output, range(end - len(item.inputs), end), width)
            for item, end in zip(items, ends, strict=True)
        ]

    def _watch(
        self, items: Sequence[Prepared], width: int, forward: Mapping[str, Any]
    ) -> GenerationWatch | None:
        """Return the stopping criterion for `items`; their padded prompts have `width` tokens."""
        prompts = [item.source if isinstance(item.source, Prompt) else None for item in items]
        if not any(prompts):
            return None
        if (_generation_settings(self._runner, forward).get("num_beams") or 1) > 1:
            return None  # beams change rows from token to token
        special = frozenset(self._runner.tokenizer.all_special_ids)
        _, _, shown = self._runner_keywords(items[0].key)
        return GenerationWatch(prompts, width, make_decoder(self._runner.tokenizer, shown), special)

    def _row(self, output: Mapping[str, Any], i: int, width: int, chunk: Chunk) -> dict[str, Any]:
        """Return row `i` of a batch's output as the output of a batch of one, without padding."""
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
        """Return the sequences of row `i` without padding on either side."""
        sequences = output["generated_sequence"][i : i + 1, :, padding:]
        ids = output["input_ids"]
        if ids is not None and ids.shape[0] > 1:
            count = _longest_sequence(sequences[0, :, chunk.length :], self._ends)
            sequences = sequences[..., : chunk.length + count]
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
        """Postprocess the rows of one item into the shape that ``pipe(x)`` returns."""
        import torch

        _, _, postprocess = self._reader_keywords(item.key)
        with torch.inference_mode():
            rows = [
                self._row(output.batch, i, output.width, chunk)
                for i, chunk in zip(output.places, item.inputs, strict=True)
            ]
            if isinstance(item.source, Prompt):
                return self._answer_prompt(item.source, rows[0], item.inputs[0].length, postprocess)
            if self.task in CHUNKED:
                answer = self._reader.postprocess(rows, **postprocess)
            elif self.task == "feature-extraction":
                answer = self._reader.postprocess((rows[0]["features"],), **postprocess)
            else:
                answer = self._reader.postprocess(rows[0], **postprocess)
        if self.task == "text-classification":
            # The pipeline wraps the only answer to a text in a list, but not that to a pair.
            alone = isinstance(item.source, str) and "top_k" not in item.parameters
            return [answer] if alone else answer
        if isinstance(answer, torch.Tensor):
            return answer.clone()  # callers could not modify an inference tensor
        words = self.task == "token-classification" and isinstance(item.source, list)
        return [answer] if words else answer

    def _answer_prompt(
        self, prompt: Prompt, row: Mapping[str, Any], begin: int, shown: Mapping[str, Any]
    ) -> list[GeneratedSequence]:
        """Return the sequences generated for a prompt; each row begins with the prompt."""
        sequences = row["generated_sequence"][0].tolist()
        decode, ends = make_decoder(self._reader.tokenizer, shown), self._ends
        return [trim_sequence(prompt, tokens[begin:], ends, decode) for tokens in sequences]


def _generation_settings(pipe: Any, forward: Mapping[str, Any]) -> dict[str, Any]:
    """Return the effective settings of ``generate``."""
    return {
        **pipe.model.generation_config.to_diff_dict(),
        **getattr(pipe, "_generate_kwargs", {}),
        **forward,
    }


def _check_one_sequence(pipe: Any, forward: Mapping[str, Any]) -> None:
    """Reject streaming of several sequences at once."""
    settings = _generation_settings(pipe, forward)
    for name in ("num_beams", "num_return_sequences"):
        if (settings.get(name) or 1) > 1:
            raise InvalidInput(f"streaming needs one sequence, got {name}={settings[name]}")


def solo_settings(pipe: Any, forward: Mapping[str, Any]) -> set[str]:
    """Return the effective settings that prevent a prompt from sharing a batch."""
    return {
        name
        for name, value in _generation_settings(pipe, forward).items()
        if name not in BATCHABLE_GENERATION
        and value is not None
        and value is not False
        and value != NEUTRAL_GENERATION.get(name)
    }


def make_decoder(tokenizer: Any, shown: Mapping[str, Any]) -> Decode:
    """Return a function from tokens to text with the keywords of the pipeline's postprocess."""
    skip = shown.get("skip_special_tokens")
    return partial(
        tokenizer.decode,
        skip_special_tokens=True if skip is None else skip,
        clean_up_tokenization_spaces=shown.get("clean_up_tokenization_spaces"),
    )


def _longest_sequence(tokens: Any, ends: Sequence[int]) -> int:
    """Return the length of the longest of `tokens` (sequences x steps), with its end token."""
    longest = 0
    for sequence in tokens.tolist():
        end = next((at for at, token in enumerate(sequence, 1) if token in ends), len(sequence))
        longest = max(longest, end)
    return longest


def position_limit(model: Any) -> int | None:
    """Return the number of positions that the model can encode; None for no limit.

    The number comes from the table of learned positions. A configuration also names a maximum for
    models that work beyond it.
    """
    import torch

    for name, module in model.named_modules():
        if name.rpartition(".")[2] not in {"position_embeddings", "embed_positions", "wpe"}:
            continue
        if isinstance(module, torch.nn.Embedding):
            # Some tables begin with unused positions.
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings - int(getattr(module, "offset", unused)))
    return None


def check_input(task: str, inputs: Any, parameters: Mapping[str, Any]) -> Any:
    """Return `inputs` as the task's preprocess takes it. Raises `InvalidInput` for other types."""
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
