"""Run by test_data_parallel.py: train a small model on some devices or processes, and print the losses of each engine.

python -m tests.bridge.data_parallel PARTS: with KERAS_BACKEND=jax on PARTS virtual devices under
keras.distribution.DataParallel, with KERAS_BACKEND=torch in PARTS gloo processes under DistributedDataParallel, or
by PyTorch alone if that is one.
"""

import json
import os
import sys
import tempfile

import numpy as np

ENGINES = ("keras", "reference", "fast")
STEPS, RATE, BATCH = 5, 0.1, 8
X = np.random.default_rng(0).standard_normal((BATCH, 6, 3)).astype("float32")
Y = X.mean(axis=(1, 2))[:, None]


def model_of(engine):
    import keras

    import keras_bridge as kb

    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 3))
    layer = kb.RecurrentSequential([kb.LSTMCell(4), keras.layers.Dense(4), kb.GRUCell(3)], engine=engine)
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile(keras.optimizers.SGD(RATE), "mse")
    return model


def on_jax(parts):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={parts}"
    import jax
    import keras

    assert len(jax.devices()) == parts
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    fit = {"batch_size": BATCH, "epochs": STEPS, "shuffle": False, "verbose": 0}
    return {engine: model_of(engine).fit(X, Y, **fit).history["loss"] for engine in ENGINES}


def worker(rank, parts, meeting, results):
    import torch

    torch.set_num_threads(1)
    store = torch.distributed.FileStore(meeting, parts)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=parts)
    found = {engine: trained(engine, rank, parts) for engine in ENGINES}
    if rank == 0:
        with open(results, "w") as file:
            json.dump(found, file)
    store.set(f"done {rank}", "yes")
    store.wait([f"done {other}" for other in range(parts)])
    os._exit(0)  # taking gloo's threads down now and then aborts the process, when all is done


def trained(engine, rank, parts):
    """Return the mean losses of all processes."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    model = model_of(engine)
    parallel = DistributedDataParallel(model) if parts > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    part = slice(rank * BATCH // parts, (rank + 1) * BATCH // parts)
    x, y = torch.tensor(X[part]), torch.tensor(Y[part])
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = ((parallel(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        if parts > 1:
            torch.distributed.all_reduce(total)
        losses.append(float(total) / parts)
    return losses


def on_torch(parts):
    import torch

    if parts == 1:
        return {engine: trained(engine, 0, 1) for engine in ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        results = os.path.join(folder, "losses")
        arguments = (parts, os.path.join(folder, "meeting"), results)
        torch.multiprocessing.spawn(worker, arguments, nprocs=parts)
        with open(results) as file:
            return json.load(file)


if __name__ == "__main__":
    run = {"jax": on_jax, "torch": on_torch}[os.environ["KERAS_BACKEND"]]
    print("losses", json.dumps(run(int(sys.argv[1]))))
