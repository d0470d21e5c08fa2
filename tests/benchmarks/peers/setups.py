"""Setups of the peers: installation, command, request format, and the settings to try."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
#: folder of the environments and the model; git ignores it
CACHE = ROOT / "build" / "peers"

#: packages of each environment, with CPU builds of torch
ENVIRONMENTS = {
    "peers": (
        "torch==2.13.0",
        "transformers>=5.0",
        "litserve==0.2.19",
        "ray[serve]==2.60.0",
        "bentoml==1.4.40",
        "mosec==0.9.8",
    ),
    "infinity": (
        "torch==2.13.0",
        "transformers<5",
        "infinity-emb[server,torch]==0.0.78",
    ),
}

#: a batch size, and seconds to wait for a full batch
Setting = tuple[int, float]
#: the setting of a server without options
NO_SETTING: Setting = (1, 0.0)

BATCHES = (1, 4, 8, 16, 32)


def as_text(text: str) -> tuple[bytes, str]:
    """Return the text itself as a body, and its type."""
    return text.encode(), "text/plain"


def as_json(wrap: Callable[[str], object]) -> Callable[[str], tuple[bytes, str]]:
    """Return a function that makes a body of JSON from a text, with its type."""

    def body(text: str) -> tuple[bytes, str]:
        return json.dumps(wrap(text)).encode(), "application/json"

    return body


@dataclass(frozen=True)
class Peer:
    """A server to compare with."""

    name: str
    #: environment that it runs in; empty for the present one
    environment: str
    #: a program of its environment, and its arguments
    command: Sequence[str]
    path: str = "/"
    body: Callable[[str], tuple[bytes, str]] = as_text
    settings: Sequence[Setting] = (NO_SETTING,)
    more: dict[str, str] = field(default_factory=dict)

    def start(
        self, port: int, setting: Setting, threads: int, size: str
    ) -> subprocess.Popen[bytes]:
        """Start the server; it answers on `port` some time later."""
        batch, wait = setting
        values = {"port": port, "batch": batch, "model": model_folder(size)}
        program, *rest = (part.format(**values) for part in self.command)
        environment = {
            **os.environ,
            "PEER_PORT": str(port),
            "PEER_MODEL": str(model_folder(size)),
            "PEER_BATCH": str(batch),
            "PEER_WAIT": str(wait),
            "PEER_SIZE": size,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "BENTOML_DO_NOT_TRACK": "1",
            "DO_NOT_TRACK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            **self.more,
        }
        CACHE.mkdir(parents=True, exist_ok=True)
        log = (CACHE / f"{self.name}.log").open("wb")
        folder = executables(self.environment)
        return subprocess.Popen(
            [str(folder / program), *rest],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


HERE_MODULE = "tests.benchmarks.peers"
ON_PORT = ("--host", "127.0.0.1", "--port", "{port}")


def module(name: str) -> Sequence[str]:
    """Return the command of a file of this folder."""
    return "python", "-m", f"{HERE_MODULE}.{name}"


PEERS = {
    peer.name: peer
    for peer in (
        Peer("notebook_serve", "", module("ours")),
        Peer("notebook_serve_process", "", module("ours"), more={"PEER_WORKER": "process"}),
        Peer("tutorial", "peers", module("tutorial")),
        Peer("tutorial_batching", "peers", module("tutorial_batching")),
        Peer(
            "litserve",
            "peers",
            module("litserve_peer"),
            "/predict",
            as_json(lambda text: {"input": text}),
            tuple(product(BATCHES, (0.0, 0.005))),
        ),
        Peer(
            "mosec",
            "peers",
            module("mosec_peer"),
            "/inference",
            settings=tuple(product(BATCHES, (0.0, 0.005))),
        ),
        Peer(
            "ray", "peers", module("ray_peer"), settings=tuple(product(BATCHES[1:], (0.0, 0.005)))
        ),
        Peer(
            "bentoml",
            "peers",
            ("bentoml", "serve", f"{HERE_MODULE}.bento_peer:Service", *ON_PORT),
            "/predict",
            as_json(lambda text: {"texts": [text]}),
            tuple(product(BATCHES[1:], (10.0,))),
        ),
        Peer(
            "infinity",
            "infinity",
            (
                *("infinity_emb", "v2", "--model-id", "{model}", "--served-model-name", "model"),
                *("--engine", "torch", "--device", "cpu", "--dtype", "float32"),
                *("--batch-size", "{batch}", *ON_PORT),
                *("--no-bettertransformer", "--no-model-warmup", "--log-level", "error"),
            ),
            "/classify",
            as_json(lambda text: {"model": "model", "input": [text]}),
            tuple(product(BATCHES[1:], (0.0,))),
        ),
    )
}


def executables(environment: str) -> Path:
    """Return the folder of an environment's programs; install the environment if needed."""
    if not environment:
        return Path(sys.executable).parent
    folder = CACHE / environment
    done = folder / "installed.json"
    wanted = json.dumps(ENVIRONMENTS[environment])
    if not done.exists() or done.read_text("utf-8") != wanted:
        print(f"installing {', '.join(ENVIRONMENTS[environment])}", file=sys.stderr)  # noqa: T201
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        # torch first: other packages would install another build
        for package in ENVIRONMENTS[environment][:1], ENVIRONMENTS[environment]:
            subprocess.run([*pip, *package], check=True)
        done.write_text(wanted, "utf-8")
    return folder / "bin"


def model_folder(size: str) -> Path:
    """Return the folder of the model; write it if needed."""
    from tests.benchmarks.workload import save

    folder = CACHE / f"model-{size}"
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        save(folder, size)
    return folder
