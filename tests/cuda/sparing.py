"""What makes compiling many kernels in one process quicker, and changes nothing of what is compiled.

Numba types each `a + b` anew by trying all that is known for `+`; here the answer for the same function and types is
remembered. And Python's collector looks through all of Numba again and again.
"""

import gc

from numba.cuda import types
from numba.cuda.typing.context import BaseContext


def spare():
    """Begin; may be called twice."""
    gc.set_threshold(100_000, 20, 50)
    original = BaseContext._resolve_user_function_type
    if getattr(original, "known", None) is not None:
        return
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

    resolve.known = known
    BaseContext._resolve_user_function_type = resolve
