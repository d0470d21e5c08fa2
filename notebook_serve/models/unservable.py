"""Advice for objects that cannot be served: the reason, and a line of code that works."""

from __future__ import annotations

import inspect
import sys
from typing import Any

PACKAGE = __name__.partition(".")[0]

#: the task of a model by the end of its class name
TASK_OF_HEAD = {
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForImageClassification": "image-classification",
    "ForAudioClassification": "audio-classification",
    "ForObjectDetection": "object-detection",
    "ForCTC": "automatic-speech-recognition",
    "ForSpeechSeq2Seq": "automatic-speech-recognition",
    "Model": "feature-extraction",
}
#: methods of a torch module that take tensors
TENSOR_METHODS = {"forward", "generate", "__call__", "_wrapped_call_impl", "_call_impl"}


def task_of_class(name: str) -> str:
    """Return the task of a model class by its name; ``TASK`` if the name has no known end."""
    return next((task for end, task in TASK_OF_HEAD.items() if name.endswith(end)), "TASK")


def why_unservable(thing: Any) -> str:
    """Return why `thing` cannot be served, with a line that works; empty if it can be."""
    name = type(thing).__name__
    bases = {base.__name__ for base in type(thing).__mro__}
    if isinstance(thing, type):
        # These two return a list or a tuple for a list.
        return "" if thing in (list, tuple) else _advice_for_class(thing)
    if inspect.iscoroutine(thing) or inspect.isgenerator(thing) or inspect.isasyncgen(thing):
        return f"a {name} runs only once; give the function that creates it, without calling it"
    if inspect.ismethod(thing) and thing.__name__ in TENSOR_METHODS and _is_net(thing.__self__):
        return why_unservable(thing.__self__)
    if _is_of_this_package(thing):
        return f"{thing.__name__} is a function of {PACKAGE}; give a pipeline or your own function"
    if inspect.ismodule(thing):
        return f"{thing.__name__} is a Python module; give a pipeline or a function from it"
    if bases & {"Server", "Endpoint"} and hasattr(thing, "what_if"):
        return f"this {name} is already serving; see its `url`"
    if bases & {"PreTrainedTokenizerBase", "ProcessorMixin", "FeatureExtractionMixin"}:
        return _advice_for_part(
            name, "tokenizer" if "PreTrainedTokenizerBase" in bases else "processor"
        )
    if bases & {"ImageProcessingMixin", "BaseImageProcessor"}:
        return _advice_for_part(name, "image_processor")
    if bases & {"PretrainedConfig", "PreTrainedConfig"}:
        return f"{name} is a configuration; write serve(pipeline('TASK', model='FOLDER OR NAME'))"
    if "PreTrainedModel" in bases:
        task = task_of_class(name)
        return (
            f"{name} is a model without a tokenizer or processor; "
            f"write serve(pipeline({task!r}, model=model, tokenizer=tokenizer))"
        )
    if hasattr(thing, "predict") and (not callable(thing) or _is_estimator(thing)):
        return f"{name} cannot be called; write serve(model.predict)"
    if _is_net(thing):
        return (
            f"{name} is a torch module, not a pipeline; write a batch function around it, such as "
            "def f(texts): return model(tokenize(texts)), and serve(f)"
        )
    if bases & {"Dataset", "DataLoader", "IterableDataset", "DatasetDict"}:
        return f"{name} holds inputs; serve a model and send it these inputs: server.predict([...])"
    if not callable(thing) and hasattr(thing, "decode") and hasattr(thing, "encode"):
        return _advice_for_part(name, "tokenizer")
    return ""


def _is_net(thing: Any) -> bool:
    bases = {base.__name__ for base in type(thing).__mro__}
    return "Module" in bases and hasattr(thing, "state_dict")


def _is_of_this_package(thing: Any) -> bool:
    """Return True for `serve`, `each` and the other public functions of this package."""
    package: Any = sys.modules[PACKAGE]
    name = getattr(thing, "__name__", "")
    return name in package.__all__ and thing is getattr(package, name)


def _is_estimator(thing: Any) -> bool:
    root = type(thing).__module__.partition(".")[0]
    return root in ("sklearn", "keras", "tensorflow", "xgboost", "lightgbm", "catboost") or any(
        base.__module__.partition(".")[0] in ("sklearn", "keras") for base in type(thing).__mro__
    )


def _advice_for_class(kind: type) -> str:
    name = kind.__name__
    bases = {f"{base.__module__}.{base.__name__}" for base in kind.__mro__}
    if "transformers.pipelines.base.Pipeline" in bases:
        return f"{name} is a class; write serve(pipeline('TASK', model=...)), which builds one"
    return f"{name} is a class; give an instance: serve({name}(...))"


def _advice_for_part(name: str, option: str) -> str:
    return (
        f"{name} is only a part of a pipeline; "
        f"write serve(pipeline('TASK', model=model, {option}={option}))"
    )
