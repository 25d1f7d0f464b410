"""Thin Click commands: parse, one call into `edgekit.flow`, one report. Heavy modules are imported inside the commands."""
