"""On a GPU: ``python -m tests.benchmarks.cuda [--seconds S] [--parts ...]``.

What `peers` and `limits` measure on a CPU, as far as one CUDA device needs it; each in fp16 and in
bf16 with a BERT of 12 layers, 768 wide, on mixed texts:

- the forward alone on texts tokenised and sorted before, by batch size, and bare ``pipe(x)``;
- this package over HTTP under several policies, swapped live on one server, with 1 to 512 clients;
- the tutorial's server and its batching loop with the same clients;
- what it takes to bring a batch to the device and its answers back, pageable and pinned;

and, in bf16, a decoder of 7 billion parameters made from its config, that writes 32 tokens for each
prompt: one prompt at a time, and in batches. The clients run in a program of their own. Weights are
random: the compute is the same. The result goes to ``results/cuda.json``.
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


def asked(url: str, clients: int, seconds: float, process: int) -> dict[str, Any]:
    """What a client in a program of its own finds."""
    words = ("ask", url, str(clients), str(seconds), str(process))
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.cuda", *words],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return dict(json.loads(done.stdout))


def ask(url: str, clients: str, seconds: str, process: str) -> None:
    """Be that client."""
    bodies = [PEERS["notebook_serve"].body(text) for text in inputs_of("mixed")]
    client = Client(int(process), url, bodies)
    load = asyncio.run(client.closed(int(clients), float(seconds)))
    print(json.dumps(load.to_dict()))  # noqa: T201


def ours(seconds: float) -> list[dict[str, Any]]:
    """This package under each policy, with each number of clients."""
    rows = []
    with serve(loader=lambda: classifier("base"), port=0, timeout=120.0, name="cuda") as server:
        server.wait_ready()
        for text in inputs_of("mixed")[:50]:
            server.predict(text)
        for text in POLICIES:
            server.policy = parse_policy(text)
            asked(server.url, 32, seconds / 2, os.getpid())  # a policy learns
            for clients in CLIENTS:
                row = {"policy": text, "clients": clients}
                rows.append({**row, **asked(server.url, clients, seconds, os.getpid())})
    return rows


def tutorial(name: str, seconds: float) -> list[dict[str, Any]]:
    """One of the tutorial's servers, with each number of clients."""
    port = free_port()
    process = replace(PEERS[name], environment="").start(port, (1, 0.0), 1, "base")
    url = f"http://127.0.0.1:{port}/"
    try:
        asyncio.run(Client(process.pid, url, [(b"hello", "text/plain")]).ready())
        return [
            {"server": name, "clients": clients, **asked(url, clients, seconds, process.pid)}
            for clients in CLIENTS[:-1]
        ]
    finally:
        end(process)


def seconds_of(what: Callable[[], object], times: int = 50) -> float:
    """The median of what something takes on the device, waited for."""
    import torch

    found = []
    for _ in range(times):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        what()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - begun)
    return median(found[5:])


def transfers() -> dict[str, float]:
    """Seconds to bring 32 rows of 64 tokens over, to run them, and to bring the logits back."""
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
    """Seconds of ``pipe(x)``, the median."""
    pipe = classifier("base")
    texts, times = inputs_of("mixed"), []
    for text in texts[:10]:
        pipe(text)
    give_up = time.perf_counter() + seconds
    for text in texts:
        begun = time.perf_counter()
        pipe(text)
        times.append(time.perf_counter() - begun)
        if begun > give_up:
            break
    return median(times)


def decoder() -> Any:
    """A text-generation pipeline of 7 billion random weights in bf16."""
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
    """Prompts a second of the decoder, one at a time and in batches."""
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
            report = load_test(
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
                    "prompts per second": report.throughput,
                    "p50": report.latency.p50,
                    "p99": report.latency.p99,
                }
            )
    return rows


def said(name: str, found: object) -> object:
    """Tell it at once: a borrowed machine may end before the last of it."""
    print(name, json.dumps(found), flush=True)  # noqa: T201
    return found


def main() -> None:
    """Measure what is asked for, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
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
            found["transfers"] = said("transfers", transfers())
            found["forward"] = said("forward", forward("mixed", "base", SIZES, options.seconds))
            found["alone"] = said("alone", alone(options.seconds / 2))
            found["ours"] = said("ours", ours(options.seconds))
        if "tutorial" in options.parts:
            for name in ("tutorial", "tutorial_batching"):
                rows = tutorial(name, options.seconds)
                found[name] = said(name, rows)
    if "decoder" in options.parts:
        result["decoder"] = said("decoder", generation(options.seconds))
    options.file.parent.mkdir(exist_ok=True)
    options.file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        ask(*sys.argv[2:])
    else:
        main()
