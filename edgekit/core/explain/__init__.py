"""A run in plain sentences, each figure with its place in run.json: `explanation` tells, the rest is what it tells from."""
