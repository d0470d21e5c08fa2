"""LitServe: one API process, one worker process."""

from __future__ import annotations

import litserve

from tests.benchmarks.peers.model import BATCH, PORT, WAIT, Classifier


class Api(litserve.LitAPI):
    """The classifier; LitServe calls it with a list if the batch size is above one."""

    def setup(self, device: str) -> None:
        """Load the classifier in the worker."""
        self.classifier = Classifier()

    def decode_request(self, request: dict[str, str]) -> str:
        """Return the text."""
        return request["input"]

    def predict(self, x: list[str] | str) -> object:
        """Return the answers, or the one answer."""
        return self.classifier([x])[0] if isinstance(x, str) else self.classifier(x)

    def encode_response(self, output: object) -> object:
        """Return the answer unchanged."""
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=WAIT)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(
        host="127.0.0.1",
        port=PORT,
        num_api_servers=1,
        generate_client_file=False,
        log_level="error",
    )
