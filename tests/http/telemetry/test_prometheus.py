"""``GET /metrics``, read by Prometheus' own programs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from notebook_serve import Greedy, ModelFailed, NoBatching, Server
from notebook_serve.queueing import stats
from notebook_serve.testing import Faulty

from ...helpers.blocking_model import Gate, eventually
from ...helpers.external_programs import program

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


def measured(inputs: list[str]) -> list[str]:
    return inputs


measured.length = len  # type: ignore[attr-defined]


def samples(server: Server, **headers: str) -> dict[tuple[str, ...], float]:
    """Return every value by the name of its metric and its labels."""
    text = httpx.get(server.url + "/metrics", headers=headers).raise_for_status().text
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_equal_the_statistics(make: Make) -> None:
    """Counters, sums and gauges of each model equal its statistics."""
    server = make(Faulty(measured, fail_on="bad"), policy=Greedy(4))
    gate = Gate()
    other = server.add("other", gate, policy=NoBatching())
    server.pause()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(server.predict, text) for text in ("a", "bb", "cccc", "dddd", "bad")]
        waiting = [pool.submit(other.predict, n) for n in range(3)]
        eventually(lambda: server.stats().queue_depth == 8, "all wait")
        server.resume()
        assert sum(future.exception() is not None for future in asked) == 1
        assert gate.begun.wait(30)
        found, told = samples(server), server.stats()
        gate.opened.set()
        assert [future.result() for future in waiting] == [0, 1, 2]
    own = told.models["test 0"]

    for model, stats_of in told.models.items():
        for outcome, count in stats_of.outcomes.items():
            key = ("notebook_serve_requests_total", f"model={model}", f"outcome={outcome}")
            assert found[key] == count
        for reason, count in stats_of.reasons.items():
            key = ("notebook_serve_batches_total", f"model={model}", f"reason={reason}")
            assert found[key] == count
        assert found["notebook_serve_queue_depth", f"model={model}"] == stats_of.queue_depth
        assert found["notebook_serve_state", f"model={model}", "state=ready"] == 1
        assert found["notebook_serve_state", f"model={model}", "state=dead"] == 0
        assert found["notebook_serve_state", f"model={model}", "state=failing"] == 0
    mine = "model=test 0"
    assert found["notebook_serve_queue_depth", "model=other"] == 2
    assert found["notebook_serve_batch_size_count", mine] == sum(own.batch_sizes.values())
    assert found["notebook_serve_batch_size_sum", mine] == 5
    assert found["notebook_serve_batch_size_bucket", "le=1.0", mine] == own.batch_sizes.get(1, 0)
    tokens, padded = (
        found[f"notebook_serve_{name}_total", mine] for name in ("tokens", "padded_tokens")
    )
    assert 1 - tokens / padded == pytest.approx(own.padding)
    for name, distribution in (
        ("queue", own.queue_time),
        ("inference", own.inference_time),
        ("latency", own.latency),
    ):
        answered = found[f"notebook_serve_request_{name}_seconds_count", mine]
        total = found[f"notebook_serve_request_{name}_seconds_sum", mine]
        assert answered == own.outcomes["ok"] == 4
        assert total / answered == pytest.approx(distribution.mean)
        assert found[f"notebook_serve_request_{name}_seconds_bucket", "le=+Inf", mine] == 4
    busy = sum(batch.seconds for batch in server.batches())
    assert found["notebook_serve_worker_busy_seconds_total", mine] == pytest.approx(busy)
    assert ("process_resident_memory_bytes",) in found or sys.platform != "linux"


def test_a_failing_model_is_a_state(make: Make) -> None:
    """The state ``failing`` is 1 and the others are 0, so an alert can use it."""
    server = make(Faulty(echo, fail_on="bad"))
    with pytest.raises(ModelFailed):
        server.predict("bad")
    found = {key[2]: value for key, value in samples(server).items() if key[0].endswith("_state")}

    assert found.pop("state=failing") == 1
    assert set(found.values()) == {0}


def test_counts_outlast_the_records(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A histogram counts all answers since the start, not only the kept records."""
    monkeypatch.setattr(stats, "KEEP_REQUESTS", 10)
    monkeypatch.setattr(stats, "KEEP_BATCHES", 10)
    server = make(echo, policy=NoBatching())
    server.predict(list(range(50)))
    found = samples(server)

    assert len(server.records()) == 10
    for name in ("request_queue_seconds", "request_latency_seconds", "batch_size"):
        assert found[f"notebook_serve_{name}_count", "model=test 0"] == 50
        assert found[f"notebook_serve_{name}_bucket", "le=+Inf", "model=test 0"] == 50
    for name in ("request_latency_seconds", "batch_padding_ratio"):
        counts = [
            value for key, value in found.items() if key[0] == f"notebook_serve_{name}_bucket"
        ]
        assert counts == sorted(counts)


def test_a_model_that_is_removed_is_scraped_no_more(make: Make) -> None:
    """An added model appears, and a removed one disappears."""
    server = make(echo)
    server.add("other", echo)
    assert any("model=other" in key for key in samples(server))
    server.remove("other")
    assert not any("model=other" in key for key in samples(server))


def test_metrics_need_the_token(make: Make) -> None:
    """The route needs the token, as others do."""
    server = make(echo, token="s3cret")

    assert httpx.get(server.url + "/metrics").status_code == 401
    assert samples(server, Authorization="Bearer s3cret")


def test_accept_chooses_the_format(make: Make) -> None:
    """The ``Accept`` header chooses Prometheus' text format or OpenMetrics."""
    url = make(echo).url + "/metrics"
    plain = httpx.get(url, headers={"Accept": "text/plain"})
    assert plain.headers["content-type"].startswith("text/plain; version=")
    modern = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = httpx.get(url, headers=modern)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_without_the_extra_the_command_is_named(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra the route answers 501 with the command, and the server works."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    server = make(echo)
    answer = httpx.get(server.url + "/metrics")

    assert answer.status_code == 501
    assert "pip install 'notebook-serve[metrics]'" in answer.json()["error"]
    assert httpx.post(server.url, content="x").json() == "x"


# -- Prometheus itself ----------------------------------------------------------------------------


def test_names_and_units_are_by_the_conventions(make: Make) -> None:
    """Prometheus' own linter has no complaint."""
    promtool = program("promtool", package="Debian's prometheus")
    server = make(echo)
    server.predict(["x"] * 3)
    text = httpx.get(server.url + "/metrics").text
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def scraped(make: Make, tmp_path: Path) -> Iterator[tuple[Server, Callable[[str], Any]]]:
    """Yield a server with two models and a token, and a query of a Prometheus that scrapes it."""
    found = program("prometheus", package="Debian's prometheus")
    server = make(echo, policy=Greedy(4), token="s3cret")
    server.add("other", measured)
    target = {"targets": [server.url.removeprefix("http://")]}
    job = {"job_name": "models", "static_configs": [target]}
    settings = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{**job, "authorization": {"credentials": "s3cret"}}],
    }
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps(settings))  # which is YAML as well
    port = free_port()
    arguments = [
        *(found, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
    ]
    log = (tmp_path / "log").open("w+")
    running = subprocess.Popen(arguments, stdout=log, stderr=log)

    def query(text: str) -> dict[str, float]:
        """Return the result of a query: values by the label ``model``."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": text})
        except httpx.TransportError:
            log.seek(0)
            assert running.poll() is None, log.read()
            return {}  # it has not started yet
        if answer.status_code != 200:
            return {}
        results = answer.json()["data"]["result"]
        return {result["metric"].get("model", ""): float(result["value"][1]) for result in results}

    try:
        yield server, query
    finally:
        running.terminate()
        running.wait(30)
        log.close()


def test_prometheus_scrapes_it(scraped: tuple[Server, Callable[[str], Any]]) -> None:
    """A real Prometheus reads every metric with its token, and evaluates queries."""
    server, query = scraped
    server.predict(["x"] * 6)
    server["other"].predict(["long", "x"])
    counts = {"test 0": 6.0, "other": 2.0}
    eventually(
        lambda: query('notebook_serve_requests_total{outcome="ok"}') == counts, "it was scraped"
    )

    assert query("up") == {"": 1.0}
    assert query("notebook_serve_request_latency_seconds_count") == counts
    batches = {
        name: float(sum(of_one.batch_sizes.values()))
        for name, of_one in server.stats().models.items()
    }
    assert query("sum by (model) (notebook_serve_batches_total)") == batches
    assert query("notebook_serve_batch_size_count") == batches
    assert query("notebook_serve_state == 1") == {"test 0": 1.0, "other": 1.0}
    median = query("histogram_quantile(0.5, notebook_serve_request_latency_seconds_bucket)")
    # A histogram knows the bucket, not the value within: the least bound is one millisecond.
    for name, of_one in server.stats().models.items():
        assert median[name] <= max(0.001, 2.5 * of_one.latency.p50)
    padding = query("1 - notebook_serve_tokens_total / notebook_serve_padded_tokens_total")
    assert padding["other"] == pytest.approx(server["other"].stats().padding)
    scraped_samples = query("scrape_samples_scraped")[""]
    assert scraped_samples == len(samples(server, Authorization="Bearer s3cret"))
