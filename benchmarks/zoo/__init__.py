"""Open models and labelled data for benchmarks: one file per model family, each with a `make(out, cache)`.

- models are the bytes their projects ship on PyPI, pinned by version and digest; nothing fetched is committed;
- data is rendered, synthesized, or taken from packages, and seeded: the same versions give the same bytes;
- magika is the exception: its samples are the machine's own files.
"""
