"""One custom-gradient call for each backend: `call(forward, backward, tensors, specs, training)`.

forward(arrays, keep) -> (arrays, ticket) and backward(arrays, gradients, ticket) -> gradients work on NumPy arrays; the
ticket says which forward run a backward one belongs to, keep whether there may be one. specs are the shapes and dtypes
of the answers. The gradients of tensors that are not floating are left out by each backend's own rule.
"""
