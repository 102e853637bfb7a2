"""Steps that pick samples of the batch by their number."""

from rsref import Input, RecurrentModel, ops


def summed(tensor):
    return ops.sum(tensor, axis=0, keepdims=True)


PICKED = {
    "slice": lambda x: summed(x[:2]) * x[1:2],
    "reversed": lambda x: x[::-1] * x,
    "rolled": lambda x: ops.concatenate([x[1:], x[:1]], axis=0),
    "joined": lambda x: summed(ops.tanh(ops.concatenate([x, x[-1:]], axis=0))),
    "padded": lambda x: ops.pad(x, [(1, 0), (0, 0)])[:-1],
    "gathered": lambda x: ops.take(x, ops.argmax(x, axis=0), axis=0)[:1] * x,
    "added up": lambda x: ops.cumsum(x, axis=0),
    "a step": lambda x: x[::2][:1] - x,
}


def recurrence_of(name, **options):
    x, h = Input((2,)), Input((2,))
    new = ops.tanh(x + ops.sin(PICKED[name](h)))
    layer = RecurrentModel(x, h * PICKED[name](x), h, new, **options)
    layer.build((None, None, 2))
    return layer.recurrence


def integers_and_bools():
    x, c, flag, h = Input((2,), dtype="int"), Input((2,)), Input((1,), dtype="bool"), Input((2,))
    new = ops.where(flag[::-1], h[::-1], ops.tanh(ops.cast(x[::-1], "float") * c[::-1]))
    layer = RecurrentModel([x, flag], [new, x[::-1], ops.logical_not(flag[::-1])], h, new, constants=c)
    layer.build((None, None, 2), (None, None, 1))
    return layer.recurrence
