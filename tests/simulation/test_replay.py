from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from notebook_serve import Server
from notebook_serve.errors import OptionError
from notebook_serve.queueing.cost_model import CostModel
from notebook_serve.queueing.learned_policies import Adaptive, CostAware
from notebook_serve.queueing.policies import CoDel, Greedy, LengthAware, NoBatching, Policy, Window
from notebook_serve.queueing.record_log import RequestLog
from notebook_serve.records import Outcome, PolicyChange, RequestRecord
from notebook_serve.simulation.replay import replay
from notebook_serve.simulation.report import Report
from notebook_serve.simulation.simulator import simulate
from notebook_serve.traffic import LogNormal, Poisson

Make = Callable[..., Server]

COST = CostModel(0.0065, 0.0004, 0.00017)
MIXED = LogNormal(22, 0.9, 4, 128)
GROUPS = ["", "", "b"]

POLICIES: list[Policy] = [
    NoBatching(),
    Greedy(8),
    Window(8, 0.004),
    LengthAware(),
    CoDel(LengthAware(), 5.0),
    CostAware(),
    Adaptive(0.1),
]


def served(policy: Policy, rate: float, start: float = 0.0, **options: Any) -> Report:
    """Return a run to replay: requests of several lengths and groups, from `start` on."""
    times = [start, *(start + at for at in Poisson(rate, seed=2).times(20.0))]
    return simulate(policy, times, COST, lengths=MIXED, groups=GROUPS, **options)


def fates(report: Report) -> list[list[Any]]:
    """Return the outcome of each request, as columns."""
    names = ("arrived", "started", "finished", "outcome", "batch_id", "length", "group")
    return [getattr(report.records, name) for name in names]


def record(
    number: int, outcome: Outcome = "ok", length: int = 10, group: str = "", ran: bool = True
) -> RequestRecord:
    """Return a request of a second ago, which ran or did not."""
    at = 50.0 + number
    return RequestRecord(
        number, at, at + 0.1 if ran else None, at + 1.0, outcome, length=length, group=group
    )


# -- the same again -----------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [math.inf, 0.2])
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_under_the_same_policy_it_is_the_same(policy: Policy, timeout: float) -> None:
    """A replay under the same policy and cost gives the same report, to the last digit."""
    before = served(policy, 110.0, timeout=timeout)
    after = replay(before.records, policy, COST, timeout=timeout)

    assert fates(after) == fates(before)
    assert after.latency == before.latency
    assert list(after.batches) == list(before.batches)
    assert timeout == math.inf or before.outcomes["expired"] > 0


def test_it_begins_when_the_first_arrives() -> None:
    """Neither the clock of the records nor their order matters."""
    early, late = served(Greedy(8), 60.0), served(Greedy(8), 60.0, start=1e5)
    shuffled = random.Random(4).sample(list(late.records), len(late.records))
    first, second = (replay(records, Greedy(8), COST) for records in (early.records, shuffled))

    assert second.records.arrived[0] == 0.0
    assert second.records.arrived == pytest.approx(first.records.arrived, abs=1e-9)
    assert second.records.length == first.records.length
    assert second.latency.p99 == pytest.approx(first.latency.p99, abs=1e-6)


def test_another_policy_makes_something_else_of_it() -> None:
    """The result is that of the other policy on the same traffic."""
    expected = served(LengthAware(), 110.0)
    found = replay(served(Greedy(16), 110.0).records, LengthAware(), COST)

    assert fates(found) == fates(expected)
    assert found.policy == repr(LengthAware())
    assert found.source == "simulated"


def test_the_policy_learns_nothing_from_it() -> None:
    """The policy is copied, as in `simulate`."""
    policy = CostAware()
    replay(served(Greedy(8), 60.0).records, policy, COST)

    assert policy.cost is None


# -- which requests are replayed ----------------------------------------------------------


def test_rejected_requests_get_the_lengths_of_others() -> None:
    """Only their arrival is known, so each gets the length and group of a request that ran."""
    before = served(Greedy(8), 200.0, max_queue_size=20)
    records = [
        item if item.started is not None else replace(item, length=1, group="")
        for item in before.records
    ]
    ran = {(item.length, item.group) for item in records if item.started is not None}
    one, same, other = (replay(records, Greedy(8), COST, seed=seed) for seed in (1, 1, 2))
    refused = {item.id for item in before.records if item.outcome == "rejected"}
    drawn = [item for item in one.records if item.id in refused]

    assert len(drawn) > 100
    assert {(item.length, item.group) for item in drawn} <= ran
    assert len({item.length for item in drawn}) > 20
    assert {item.group for item in drawn} == {"", "b"}
    assert one.records.length == same.records.length
    assert one.records.length != other.records.length
    assert [item.length for item in one.records if item.id not in refused] == [
        item.length for item in before.records if item.id not in refused
    ]


def test_those_that_could_not_be_run_are_left_out() -> None:
    """Invalid inputs, and requests that failed in preprocessing, cost nothing and are left out."""
    records = [
        record(1),
        record(2, "invalid", ran=False),
        record(3, "invalid"),
        record(4, "failed", length=20),
        record(5, "failed", ran=False),
        record(6, "expired", length=30),
    ]
    report = replay(records, NoBatching(), COST)

    assert report.records.arrived == [0.0, 3.0, 5.0]
    assert report.records.length == [10, 20, 30]
    assert report.records.outcome == ["ok"] * 3


@pytest.mark.parametrize("outcome", ["expired", "cancelled"])
def test_requests_that_left_the_queue_keep_their_lengths(outcome: Outcome) -> None:
    """Their length is known; whether they time out again depends on the replay."""
    records = [record(1), record(2, outcome, length=77, group="b", ran=False)]
    report = replay(records, NoBatching(), COST)

    assert report.records.length == [10, 77]
    assert report.records.group == ["", "b"]


def test_an_input_of_no_length_is_replayed_as_the_shortest() -> None:
    """A length of 0 is counted as 1."""
    report = replay([record(1, length=0), record(2, length=5)], NoBatching(), COST)

    assert report.records.length == [1, 5]


@pytest.mark.parametrize(
    "records",
    [
        [],
        [record(1, "rejected", ran=False)],
        [record(1, "invalid"), record(2, "expired", ran=False)],
    ],
    ids=["nothing", "only refused", "none that ran"],
)
def test_nothing_to_replay_is_an_error(records: list[RequestRecord]) -> None:
    """Without a request that ran, there is no length to replay."""
    with pytest.raises(OptionError, match="no request has run yet"):
        replay(records, Greedy(), COST)


# -- the options --------------------------------------------------------------------------


def test_batches_vary_as_the_fit_says() -> None:
    """The noise is that of the fit, none for a model that was not fitted, or the given one."""
    records = served(Greedy(8), 60.0).records
    fitted = replace(COST, error=0.2, batches=100)
    by_fit = replay(records, Greedy(8), fitted)
    asked = replay(records, Greedy(8), COST, noise=0.2)
    none = replay(records, Greedy(8), fitted, noise=0.0)

    assert fates(by_fit) == fates(asked)
    assert fates(none) == fates(replay(records, Greedy(8), COST))
    assert fates(by_fit) != fates(none)


def test_the_options_are_those_of_simulate() -> None:
    """Options of `simulate` are passed on, and unknown options are rejected."""
    records = served(Greedy(8), 110.0).records
    report = replay(
        records, NoBatching(), COST, replicas=2, dispatch="shortest", deadline=0.1, timeout=0.5
    )

    assert report.replicas == 2
    assert report.deadline == 0.1
    assert (
        report.outcomes["expired"]
        < replay(records, NoBatching(), COST, timeout=0.5).outcomes["expired"]
    )
    with pytest.raises(TypeError, match="replica"):
        replay(records, NoBatching(), COST, replica=2)


# -- on a server --------------------------------------------------------------------------


def sleeping(inputs: Sequence[str]) -> list[str]:
    """Take a millisecond, and a little for each padded token."""
    time.sleep(0.001 + 2e-6 * len(inputs) * max(map(len, inputs)))
    if "bad" in inputs:
        raise ValueError("a bad input")
    return [text.upper() for text in inputs]


sleeping.length = len  # type: ignore[attr-defined]


def texts(count: int, seed: int = 0) -> list[str]:
    """Return texts of several lengths."""
    rng = random.Random(seed)
    return ["x" * rng.randint(1, 60) for _ in range(count)]


def test_a_server_that_served_nothing_has_nothing_to_tell(make: Make) -> None:
    """The error says what to do, with or without a cost."""
    server = make(sleeping)

    with pytest.raises(OptionError, match="no batches"):
        server.fit_cost()
    with pytest.raises(OptionError, match="serve some"):
        server.what_if(Greedy())
    with pytest.raises(OptionError, match="serve some"):
        server.what_if(Greedy(), cost=COST)


def test_a_server_fits_what_its_batches_cost(make: Make) -> None:
    """The fit uses the batches that ran; a batch that failed and was retried is left out."""
    server = make(sleeping, policy=Greedy(4))
    for number in range(10):
        server.predict(texts(12, number))
    for future in [server._engine.submit(["fine", "bad", "fine"], {}) for _ in range(5)]:
        assert [each.exception() is None for each in future] == [True, False, True]
    batches = server.batches()
    fitted = server.fit_cost()

    assert fitted.batches == sum(not batch.retries for batch in batches)
    assert fitted.batches < len(batches)
    assert fitted([30] * 4) > 0.001


def test_what_if_replays_what_a_server_served(make: Make) -> None:
    """The same requests run under another policy, with the server's cost and limits."""
    server = make(sleeping, policy=Greedy(4), timeout=20.0, max_queue_size=500)
    sent = [text for number in range(5) for text in texts(12, number)]
    for number in range(5):
        server.predict(texts(12, number))
    report = server.what_if(LengthAware(8))
    records = server.records()

    assert report.policy == repr(LengthAware(8))
    assert report.source == "simulated"
    assert sorted(report.records.length) == sorted(map(len, sent))
    assert report.records.arrived == pytest.approx(
        sorted(item.arrived - records[0].arrived for item in records), abs=1e-9
    )
    assert report.records.outcome == ["ok"] * 60
    assert report.deadline == 20.0
    assert max(batch.size for batch in report.batches) > 4
    assert server.policy == Greedy(4)
    assert len(server.records()) == 60


def test_the_options_of_what_if_go_before_the_servers_own(make: Make) -> None:
    """Cost and limits are the server's by default."""
    server = make(sleeping, timeout=20.0, max_queue_size=50, refuse_late=False)
    server.predict(texts(40))
    slow = CostModel(fixed=1.0)
    two = server.what_if(NoBatching(), cost=slow, replicas=2, dispatch="round_robin")
    short = server.what_if(NoBatching(), cost=slow, timeout=5.5, max_queue_size=10)

    limits = {"max_queue_size": 50, "timeout": 20.0, "refuse_late": False, "replicas": 1}
    assert server.limits == limits
    assert two.replicas == 2
    assert two.outcomes == {**dict.fromkeys(two.outcomes, 0), "ok": 38, "expired": 2}
    assert [batch.seconds for batch in two.batches] == [1.0] * len(two.batches)
    assert short.deadline == 5.5
    assert short.outcomes["rejected"] == 30
    assert short.outcomes["ok"] == 5


def test_what_if_takes_a_policy_and_nothing_else(make: Make) -> None:
    """A policy is checked as the server's own."""
    server = make(sleeping)
    server.predict("x")
    wrong: Any = print

    with pytest.raises(OptionError, match="a policy must be an object"):
        server.what_if(wrong)


def test_records_may_come_as_columns() -> None:
    """The log of a report and a list of its records give the same replay."""
    report = served(Greedy(8), 60.0)
    assert isinstance(report.records, RequestLog)

    assert fates(replay(report.records, Greedy(2), COST)) == fates(
        replay(list(report.records), Greedy(2), COST)
    )


# -- what is doubtful ---------------------------------------------------------------------


def test_a_note_names_several_policies() -> None:
    """A note names each policy, with times from the first request."""
    records = [record(number) for number in range(10)]  # from 50 s to 60 s
    changes = [
        PolicyChange(20.0, "NoBatching()", "start"),
        PolicyChange(30.0, "Greedy(2)"),
        PolicyChange(52.5, "Greedy(8)"),
        PolicyChange(99.0, "Window(8)"),
    ]
    several = replay(records, Greedy(8), COST, changes=changes)
    one = replay(records, Greedy(8), COST, changes=changes[:2])

    assert several.notes == (
        "These requests were served under Greedy(2) until 2.50 s, then Greedy(8).",
    )
    assert one.notes == ()


def test_a_report_is_replayed_with_its_policies() -> None:
    """A report has its changes, on its own clock."""
    before = replace(served(NoBatching(), 60.0), changes=(PolicyChange(5.0, "Greedy(4)", "fault"),))
    after = replay(before, Greedy(8), COST)

    assert fates(after) == fates(replay(before.records, Greedy(8), COST))
    (note,) = after.notes
    assert note.startswith("These requests were served under NoBatching() until ")
    assert note.endswith(", then Greedy(4) (the previous policy failed).")


def test_a_bad_fit_is_a_warning_and_rounds_figures() -> None:
    """The warnings of the cost model are in the text, the HTML and the file of the report."""
    cost = replace(COST, error=0.69, batches=30, largest=2, longest=1000)
    report = replay(served(Greedy(8), 110.0).records, Greedy(8), cost)

    assert report.is_rough
    assert [note.partition(":")[0] for note in report.notes] == [
        "The cost model does not fit",
        "Batches were larger than the 2 requests that the cost model was fitted to",
    ]
    assert Report.from_json(report.to_json()).notes == report.notes
    assert all(note in repr(report) for note in report.notes)
    assert re.search(r"throughput +≈\d+/s\n", repr(report))


def test_what_if_names_the_policies_that_served(make: Make) -> None:
    """The server records when each policy took effect."""
    server = make(lambda inputs: inputs, policy=NoBatching())
    for policy in (Greedy(2), Greedy(3)):
        server.predict(["x"] * 30)
        server.policy = policy
    server.predict(["x"] * 30)
    notes = " ".join(server.what_if(Greedy(8)).notes)

    assert "served under NoBatching() until" in notes
    assert ", then Greedy(max_batch_size=2) until" in notes
    assert ", then Greedy(max_batch_size=3)." in notes


def test_what_if_has_the_doubts_of_what_was_served(make: Make) -> None:
    """Few batches, all of one size, give warnings."""
    server = make(lambda inputs: inputs, policy=NoBatching())
    for _ in range(5):
        server.predict("x")
    notes = server.what_if(Greedy(8)).notes

    assert any("only 5 batches" in note for note in notes)
    assert any("do not distinguish fixed from per_item" in note for note in notes)
