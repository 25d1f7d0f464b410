"""What edgekit does, one module a command; each reads like the way data flows: prepare, plan, build, measure, choose, keep."""
