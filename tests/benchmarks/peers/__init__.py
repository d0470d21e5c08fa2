"""Alternatives to this package, measured with the same model.

One file for each server. Each runs in a separate process and a separate environment, with its
options in environment variables: `PEER_PORT`, `PEER_MODEL` (a folder), `PEER_BATCH` (batch size)
and `PEER_WAIT` (seconds to wait for a full batch).
"""
