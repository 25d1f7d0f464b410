"""A run as one HTML file that needs nothing else.

- One file: styles, script and the chart library stand in it. Its content security policy lets it load nothing, send nothing, and
  run nothing but those, by their digests.
- Everything that is read is in the markup: without the script there are no charts, no sorting and no filter, and all else.
- Names of models, layers and data are untrusted: `tags` escapes whatever it did not make.
- The same records give the same bytes: no clock, no chance.
"""

from edgekit.report.html.page import render

__all__ = ["render"]
