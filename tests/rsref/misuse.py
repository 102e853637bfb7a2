"""How misuse is answered: by an error of a kind, whose text has certain words."""

import re
from collections.abc import Callable, Sequence

import pytest


def missing_words(misuse: Callable[[], object], kind: type[Exception], words: Sequence[str]) -> list[str]:
    """Return which words (regular expressions) the error lacks that misuse raises, which must be of a kind."""
    with pytest.raises(kind) as caught:
        misuse()
    return [word for word in words if not re.search(word, str(caught.value))]
