"""What makes compiling many kernels in one process quicker, and changes nothing of what is compiled.

Numba types each `a + b` anew by trying all that is known for `+`; here the answer for the same function and types is
remembered. The test processes of one run share a folder for what they have compiled.
"""

import os
from pathlib import Path
from weakref import WeakKeyDictionary

from numba.core.errors import NumbaError
from numba.core.target_extension import get_local_target
from numba.core.types import unliteral
from numba.core.types.functions import BaseFunction
from numba.core.utils import order_by_target_specificity


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


def without_literals(original):
    """Return a function type's way from types of arguments to a signature, which remembers.

    It does not tell known numbers apart. Numba asks each of a function's templates, first with a number's type, then
    with the number itself, unless the template prefers it the other way round: so what the first template answers for
    the type it answers for each number.
    """
    known, alike = {}, {}

    def get_call_type(self, context, arguments, named):
        if named:
            return original(self, context, arguments, named)
        plain = tuple(unliteral(a) for a in arguments)
        key = context, self, plain
        if plain != tuple(arguments):
            if key not in alike:
                alike[key] = _first_answers(self, context, plain)
            if not alike[key]:
                return original(self, context, arguments, named)
        if key not in known:
            found = original(self, context, plain, named)
            if found is None:  # some are not known yet
                return None
            known[key] = found
        return known[key]

    return get_call_type


def _first_answers(function, context, plain):
    first = order_by_target_specificity(get_local_target(context), function.templates, fnkey=function.key[0])[0]
    return not first.prefer_literal and _answer(first(context), plain) is not None


def _answer(template, arguments):
    try:
        return template.apply(arguments, {})
    except NumbaError:
        return None


_spared = set()


def spare(context, dispatchers):
    """Begin, with a class of Numba's typing contexts; may be called twice."""
    if not _spared:
        BaseFunction.get_call_type = without_literals(BaseFunction.get_call_type)
    if context not in _spared:
        _spared.add(context)
        context._resolve_user_function_type = remembering(context._resolve_user_function_type, dispatchers)


def write_once(library):
    """Let LLVM's modules be written out once: what kernels have in common is part of each. library: Numba's class."""
    texts = WeakKeyDictionary()

    def text_of(module):
        if module not in texts:
            texts[module] = str(module)
        return texts[module]

    library.llvm_strs = property(lambda self: [text_of(module) for module in self.modules])


def kernel_folder(tmp_path_factory):
    """Return the folder for compiled kernels that all test processes of one run share, or of one run of tox."""
    if "RSREF_FAST_CACHE" in os.environ:
        return Path(os.environ["RSREF_FAST_CACHE"])
    root = tmp_path_factory.getbasetemp()
    return (root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root) / "kernels"
