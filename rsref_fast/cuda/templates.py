"""The text of a function of which some lines stand for several: its results are variables, which stay in registers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def filled(template: str, blocks: Mapping[str, Sequence[str]], names: Mapping[str, object]) -> str:
    """Return a text with lines in place of those that name a block, and names in all others."""
    lines = []
    for line in template.strip().splitlines():
        stripped = line.strip()
        if stripped.strip("{}") in blocks:
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + inner for inner in blocks[stripped.strip("{}")]]
        else:
            lines.append(line.format(**names))
    return "\n".join(lines) + "\n"
