"""Where ekrun runs: this machine, so far."""
