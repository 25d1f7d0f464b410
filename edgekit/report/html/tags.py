"""HTML that can't be injected into: what is not made by `tag` is text, and text is escaped.

- `Html` is a string of finished markup; only this module makes it, but for edgekit's own files;
- names of models, layers, tensors and data are untrusted: control and direction characters are written out, never sent;
- an attribute is escaped too, and no attribute that a script or an address could stand in is ever made from a record;
- JSON inside a `<script>` holds no `<`, `>` or `&`, so that nothing in it can end the element.
"""

import html
import json
from collections.abc import Iterable

from edgekit.errors import printable

VOID = frozenset({"br", "col", "hr", "input", "meta", "rect", "wbr"})

Child = object  # anything: what is not Html is text


class Html(str):
    """Finished markup."""

    __slots__ = ()


def text(value: object) -> Html:
    """`value` as text: escaped, and printable."""
    return value if isinstance(value, Html) else Html(html.escape(printable(str(value))))


def tag(element: str, /, *children: Child, **attributes: object) -> Html:
    """An element. `class_` is class and `data_x` is data-x; an attribute that is None or False is left out, True has no value."""
    written = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if element in VOID and not children:
        return Html(f"<{element}{written}>")
    return Html(f"<{element}{written}>{join(children)}</{element}>")


def join(children: Iterable[Child], between: str = "") -> Html:
    """Children one after the other; None is nothing."""
    return Html(str(text(between)).join(str(text(child)) for child in children if child is not None))


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(value)}"'


def json_block(identity: str, value: object) -> Html:
    """A data block that no browser runs: its JSON can't end the element, and a number in it is finite. Raises ValueError."""
    data = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return Html(f'<script type="application/json" id="{text(identity)}">{data}</script>')
