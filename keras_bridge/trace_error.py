"""The error of everything that turns a Keras step into rsref's ops."""


class TraceError(NotImplementedError):
    """A layer or operation of the step has no counterpart in rsref; the text names it."""
