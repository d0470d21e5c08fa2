"""Servers that a person might pick instead, each started with the same model, and measured.

One file each; all run as programs of their own, in environments of their own, and are told what to
do by environment variables: `PEER_PORT`, `PEER_MODEL` (a folder), `PEER_BATCH` (most requests of a
batch) and `PEER_WAIT` (seconds to wait for more).
"""
