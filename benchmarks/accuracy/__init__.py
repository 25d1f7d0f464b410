"""edgekit's choice beside what the field's tools make of the same model and data: `python -m benchmarks.accuracy --help`.

`records` names what is compared and what is kept, `builders` makes the tools' artifacts in child processes that `child` watches,
`bench` keeps them, `measure` judges and races all of a model, `verdicts` draws the conclusions, `report` writes them down.
"""
