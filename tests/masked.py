"""Which rows a mask leaves, by NumPy: what compiled code, XLA and CUDA kernels are compared with."""

import numpy as np

from rsref_fast.packing import Shard


def masked_batch(
    mask: np.ndarray, shards: int, truncate: int | None, stretch: tuple[int, int] | None = None
) -> tuple[tuple[Shard, ...], np.ndarray]:
    """Return shards of a batch of which only the steps where the mask (batch, time) holds are valid.

    The second answer is the samples in the order in which the shards have them. stretch: as in `whole_batch`.
    """
    whole = mask.shape[1]
    begin, end = stretch or (0, whole)
    mask = mask[:, begin:end]
    lengths = mask.sum(1)
    order = np.argsort(-lengths, kind="stable")
    times = np.argsort(~mask, axis=1, kind="stable")
    first = np.arange(len(mask)) * whole + begin
    found = tuple(_shard(order[i::shards], lengths, times, first, truncate) for i in range(shards))
    return found, np.concatenate([order[i::shards] for i in range(shards)])


def _shard(rows: np.ndarray, lengths: np.ndarray, times: np.ndarray, first: np.ndarray, truncate: int | None) -> Shard:
    """Return the shard of some samples. first: the place of each sample's first step."""
    time = times.shape[1]
    own = lengths[rows]
    steps = int(own.max()) if len(own) else 0
    valid = np.arange(steps)[:, None] < own
    when = times[rows, :steps].T
    cut, cut_end = np.zeros((steps, len(rows)), bool), np.zeros(len(rows), bool)
    if truncate is not None and time:
        stretch = when // truncate
        before = np.vstack([np.zeros((1, len(rows)), stretch.dtype), stretch[:-1]]) if steps else stretch
        cut = stretch != before
        last = stretch[np.maximum(own - 1, 0), np.arange(len(rows))] if steps else np.zeros_like(own)
        cut_end = last != (time - 1) // truncate
    return Shard(
        count=len(rows),
        off=np.concatenate([[0], np.cumsum(valid.sum(1))]).astype(np.int64),
        pos=(first[rows] + when)[valid].astype(np.int64),
        rid=np.broadcast_to(np.arange(len(rows)), valid.shape)[valid].astype(np.int64),
        cut=cut[valid].astype(np.uint8),
        cut_end=cut_end,
    )
