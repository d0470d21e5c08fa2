"""The peers: how each is installed, started and asked, and the settings that are tried."""

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
#: where the environments and the model lie; git ignores it
CACHE = ROOT / "build" / "peers"

#: what is installed into each environment; CPU builds of torch
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

#: a setting: most requests of a batch, and seconds to wait for more
Setting = tuple[int, float]
#: that of a server which has nothing to set
NO_SETTING: Setting = (1, 0.0)

BATCHES = (1, 4, 8, 16, 32)


def as_text(text: str) -> tuple[bytes, str]:
    """The text itself as a body, and its type."""
    return text.encode(), "text/plain"


def as_json(wrap: Callable[[str], object]) -> Callable[[str], tuple[bytes, str]]:
    """The text in some JSON as a body, and its type."""

    def body(text: str) -> tuple[bytes, str]:
        return json.dumps(wrap(text)).encode(), "application/json"

    return body


@dataclass(frozen=True)
class Peer:
    """A server to compare with."""

    name: str
    #: the environment that it runs in; this one's where empty
    environment: str
    #: a program of its environment, and what it is given
    command: Sequence[str]
    path: str = "/"
    body: Callable[[str], tuple[bytes, str]] = as_text
    settings: Sequence[Setting] = (NO_SETTING,)
    more: dict[str, str] = field(default_factory=dict)

    def start(
        self, port: int, setting: Setting, threads: int, size: str
    ) -> subprocess.Popen[bytes]:
        """Start it; it answers on `port` some time later."""
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
    """What starts a file of this folder."""
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
    """The folder of an environment's programs; it is made where there is none yet."""
    if not environment:
        return Path(sys.executable).parent
    folder = CACHE / environment
    done = folder / "installed.json"
    wanted = json.dumps(ENVIRONMENTS[environment])
    if not done.exists() or done.read_text("utf-8") != wanted:
        print(f"installing {', '.join(ENVIRONMENTS[environment])}", file=sys.stderr)  # noqa: T201
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        # torch first: others would take another build of it
        for package in ENVIRONMENTS[environment][:1], ENVIRONMENTS[environment]:
            subprocess.run([*pip, *package], check=True)
        done.write_text(wanted, "utf-8")
    return folder / "bin"


def model_folder(size: str) -> Path:
    """Where the model lies; it is written where it is not there yet."""
    from tests.benchmarks.workload import save

    folder = CACHE / f"model-{size}"
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        save(folder, size)
    return folder
