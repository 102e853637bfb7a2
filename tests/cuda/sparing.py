"""What makes compiling many kernels in one process quicker, and changes nothing of what is compiled.

Numba types each `a + b` anew by trying all that is known for `+`; here the answer for the same function and types is
remembered. Python's collector looks through all of Numba again and again.
"""

import gc

from numba.cuda import types
from numba.cuda.typing.context import BaseContext


def remembering(original):
    """Return a context's way from a function and types to a signature, which remembers."""
    known = {}

    def resolve(self, function, arguments, named, *rest):
        if named or rest or isinstance(function, types.Dispatcher):
            return original(self, function, arguments, named, *rest)
        key = self, function, tuple(arguments)
        if key not in known:
            found = original(self, function, arguments, named)
            if found is None:  # some are not known yet
                return None
            known[key] = found
        return known[key]

    return resolve


_spared = []


def spare():
    """Begin; may be called twice."""
    if not _spared:
        _spared.append(True)
        gc.set_threshold(100_000, 20, 50)
        BaseContext._resolve_user_function_type = remembering(BaseContext._resolve_user_function_type)
