"""The bundle: its container, the keys that sign it and what is trusted (docs/bundle-format.md)."""
