"""What makes compiling many kernels in one process quicker, and changes nothing of what is compiled.

Numba types each `a + b` anew by trying all that is known for `+`; here the answer for the same function and types is
remembered.
"""


def remembering(original, dispatchers):
    """Return a context's way from a function and types to a signature, which remembers.

    dispatchers: the type of functions that are compiled when they are asked for, which is not to be skipped.
    """
    known = {}

    def resolve(self, function, arguments, named, *rest):
        if named or rest or isinstance(function, dispatchers):
            return original(self, function, arguments, named, *rest)
        key = self, function, tuple(arguments)
        if key not in known:
            found = original(self, function, arguments, named)
            if found is None:  # some are not known yet
                return None
            known[key] = found
        return known[key]

    return resolve


_spared = set()


def spare(context, dispatchers):
    """Begin, with a class of Numba's typing contexts; may be called twice."""
    if context not in _spared:
        _spared.add(context)
        context._resolve_user_function_type = remembering(context._resolve_user_function_type, dispatchers)
