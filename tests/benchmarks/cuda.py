"""Benchmarks on a GPU: ``python -m tests.benchmarks.cuda [--seconds S] [--parts ...]``.

Measures on one CUDA device, in fp16 and in bf16, a BERT of 12 layers and 768 units on mixed texts:

- the forward pass alone on texts that are tokenised and sorted in advance, by batch size, and
  ``pipe(x)`` in a loop;
- this package over HTTP under several policies, swapped live on one server, with 1 to 512 clients;
- the tutorial's server and its batching loop with the same clients;
- the transfer of a batch to the device and of its logits back, from pageable and pinned memory.

In bf16 it also measures a decoder with 7 billion parameters that generates 32 tokens per prompt,
one prompt at a time and in batches. The clients run in a separate process. Weights are random,
which does not change the compute. The result goes to ``results/cuda.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from notebook_serve import load_test, parse_policy, serve
from tests.benchmarks.peers.client import Client, end, free_port
from tests.benchmarks.peers.setups import PEERS
from tests.benchmarks.upper_bounds import forward
from tests.benchmarks.workload import classifier, inputs_of

RESULT = Path(__file__).parent / "results" / "cuda.json"
CLIENTS = (1, 32, 128, 512)
POLICIES = ("NoBatching", "Greedy(64)", "LengthAware(64)", "CostAware")
SIZES = (16, 32, 64, 128, 256)
DTYPES = ("float16", "bfloat16")


def ask_in_process(url: str, clients: int, seconds: float, process: int) -> dict[str, Any]:
    """Run a client in a separate process; return its figures."""
    words = ("ask", url, str(clients), str(seconds), str(process))
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.cuda", *words],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return dict(json.loads(done.stdout))


def ask(url: str, clients: str, seconds: str, process: str) -> None:
    """Run the client, and print its figures."""
    bodies = [PEERS["notebook_serve"].body(text) for text in inputs_of("mixed")]
    client = Client(int(process), url, bodies)
    load = asyncio.run(client.closed(int(clients), float(seconds)))
    print(json.dumps(load.to_dict()))  # noqa: T201


def ours(seconds: float) -> list[dict[str, Any]]:
    """Measure this package under each policy, with each number of clients."""
    rows = []
    with serve(loader=lambda: classifier("base"), port=0, timeout=120.0, name="cuda") as server:
        server.wait_ready()
        for text in inputs_of("mixed")[:50]:
            server.predict(text)
        for text in POLICIES:
            server.policy = parse_policy(text)
            # An adaptive policy learns during the warm-up.
            ask_in_process(server.url, 32, seconds / 2, os.getpid())
            for clients in CLIENTS:
                row = {"policy": text, "clients": clients}
                found = ask_in_process(server.url, clients, seconds, os.getpid())
                rows.append({**row, **found})
    return rows


def tutorial(name: str, seconds: float) -> list[dict[str, Any]]:
    """Measure one of the tutorial's servers, with each number of clients."""
    port = free_port()
    process = replace(PEERS[name], environment="").start(port, (1, 0.0), 1, "base")
    url = f"http://127.0.0.1:{port}/"
    try:
        asyncio.run(Client(process.pid, url, [(b"hello", "text/plain")]).ready())
        return [
            {
                "server": name,
                "clients": clients,
                **ask_in_process(url, clients, seconds, process.pid),
            }
            for clients in CLIENTS[:-1]
        ]
    finally:
        end(process)


def seconds_of(call: Callable[[], object], times: int = 50) -> float:
    """Measure the median seconds of a call, until the device is idle."""
    import torch

    found = []
    for _ in range(times):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        call()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - begun)
    return median(found[5:])


def transfers() -> dict[str, float]:
    """Measure the seconds to transfer 32 rows of 64 tokens, to run them, and to return logits."""
    import torch

    pipe = classifier("base")
    made = pipe.tokenizer(["word " * 62] * 32, return_tensors="pt")
    pinned = {key: value.pin_memory() for key, value in made.items()}
    there = {key: value.to("cuda") for key, value in made.items()}
    with torch.inference_mode():
        logits = pipe.model(**there).logits

        def launch() -> float:
            torch.cuda.synchronize()
            begun = time.perf_counter()
            pipe.model(**there)
            return time.perf_counter() - begun

        return {
            "there, pageable": seconds_of(lambda: [v.to("cuda") for v in made.values()]),
            "there, pinned": seconds_of(
                lambda: [v.to("cuda", non_blocking=True) for v in pinned.values()]
            ),
            "back": seconds_of(logits.cpu),
            "forward": seconds_of(lambda: pipe.model(**there)),
            "forward, until it is launched": median(launch() for _ in range(30)),
        }


def alone(seconds: float) -> float:
    """Measure the median seconds of ``pipe(x)``."""
    pipe = classifier("base")
    texts, times = inputs_of("mixed"), []
    for text in texts[:10]:
        pipe(text)
    deadline = time.perf_counter() + seconds
    for text in texts:
        begun = time.perf_counter()
        pipe(text)
        times.append(time.perf_counter() - begun)
        if begun > deadline:
            break
    return median(times)


def decoder() -> Any:
    """Make a text-generation pipeline of 7 billion random weights in bf16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, TextGenerationPipeline

    tokenizer = classifier("small").tokenizer
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=31_999,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    return TextGenerationPipeline(model=model, tokenizer=tokenizer, device="cuda")


def generation(seconds: float) -> list[dict[str, Any]]:
    """Measure prompts per second of the decoder, one at a time and in batches."""
    rows = []
    parameters = {"max_new_tokens": 32, "do_sample": False, "return_full_text": False}
    texts = inputs_of("mixed", 200)
    with serve(loader=decoder, port=0, timeout=300.0, name="decoder") as server:
        server.wait_ready()
        server.predict(texts[0], **parameters)
        for text, clients in (
            ("NoBatching", 1),
            ("NoBatching", 16),
            ("LengthAware(16)", 16),
            ("LengthAware(64)", 64),
        ):
            server.policy = parse_policy(text)
            loaded = load_test(
                server,
                texts,
                parameters=parameters,
                concurrency=clients,
                duration=2 * seconds,
                progress=False,
            )
            rows.append(
                {
                    "policy": text,
                    "clients": clients,
                    "prompts per second": loaded.throughput,
                    "p50": loaded.latency.p50,
                    "p99": loaded.latency.p99,
                }
            )
    return rows


def report(name: str, found: object) -> object:
    """Print a result at once, in case the machine ends before the last one, and return it."""
    print(name, json.dumps(found), flush=True)  # noqa: T201
    return found


def main() -> None:
    """Measure the parts of the command line; print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of each measurement")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES)
    parser.add_argument("--parts", nargs="+", default=["encoder", "tutorial", "decoder"])
    parser.add_argument("--file", type=Path, default=RESULT)
    options = parser.parse_args()

    import torch
    import transformers

    os.environ["BENCH_DEVICE"] = "cuda"
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    for dtype in options.dtypes if {"encoder", "tutorial"} & {*options.parts} else []:
        os.environ["BENCH_DTYPE"] = dtype
        found: dict[str, Any] = {}
        result[dtype] = found
        if "encoder" in options.parts:
            found["transfers"] = report("transfers", transfers())
            found["forward"] = report("forward", forward("mixed", "base", SIZES, options.seconds))
            found["alone"] = report("alone", alone(options.seconds / 2))
            found["ours"] = report("ours", ours(options.seconds))
        if "tutorial" in options.parts:
            for name in ("tutorial", "tutorial_batching"):
                rows = tutorial(name, options.seconds)
                found[name] = report(name, rows)
    if "decoder" in options.parts:
        result["decoder"] = report("decoder", generation(options.seconds))
    options.file.parent.mkdir(exist_ok=True)
    options.file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        ask(*sys.argv[2:])
    else:
        main()
