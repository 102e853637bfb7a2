"""One custom-gradient call for each backend: `call(forward, backward, tensors, specs)`.

forward(arrays) -> arrays and backward(arrays, gradients) -> gradients work on NumPy arrays; specs are the shapes and
dtypes of the answers. The gradients of tensors that are not floating are left out by each backend's own rule.
"""
