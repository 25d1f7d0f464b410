"""Data sets: reading and checking them, the feed layout, metrics and scores. Everything here runs in the sandbox's child."""
