"""More random steps than the tests run: `python -m tests.fuzz --graphs 10000 [--seed 1] [--target cpu] [--float32]`."""

import argparse

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings

import rsref_fast
from rsref.testing import step_graphs
from rsref_fast import wide
from rsref_fast.cpu import checkpoint, interpreted
from rsref_fast.cpu.kernels import Interpreted
from rsref_fast.cpu.splitting import Split
from tests.fast.agreement import check


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices")
    parser.add_argument("--target", default="interpreter", choices=("interpreter", "cpu"), help="cpu compiles each one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--float32", action="store_true", help="instead of float64")
    parser.add_argument("--mixing", action="store_true", help="steps that work across the samples of a batch, too")
    parser.add_argument("--checkpoint", action="store_true", help="with checkpoints, of stretches as short as can be")
    parser.add_argument("--team", type=int, default=0, help="threads that share each step, of panels of one column")
    parser.add_argument("--rounds", type=int, default=1, help="in which samples are computed, one after the other")
    parser.add_argument("--rows", type=int, help="of a block of steps, instead of a hundred or more")
    parser.add_argument("--wide", type=int, default=wide.WIDE, help="values of a sample that make a tensor wide")
    options = parser.parse_args()
    for name in ("graphs", "threads", "rounds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be positive; got {getattr(options, name)}")
    if options.checkpoint:
        checkpoint.ROOTS = 1
    if options.team:
        interpreted.WIDTH = 1
    Interpreted.block_rows, wide.WIDE = options.rows, options.wide
    rounds, team = options.rounds, options.team
    split = Split(rounds, team or 1, rounds) if team or rounds > 1 else None
    dtype = np.float32 if options.float32 else np.float64
    done = 0

    @seed(options.seed)
    @settings(
        max_examples=options.graphs, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    @given(example=step_graphs(mixing=options.mixing))
    def run(example):
        nonlocal done
        own = {"target": options.target, "threads": options.threads}
        engine = rsref_fast.compile(example.recurrence, checkpoint=True, **own) if options.checkpoint else None
        check(
            example.recurrence,
            example.arguments,
            engine=engine,
            dtype=dtype,
            split=split,
            sparse=True,
            least=1.0,
            **own,
        )
        done += 1
        if done % 500 == 0:
            print(f"{done} graphs agree with the oracle", flush=True)

    run()
    print(f"{done} graphs agree with the oracle")


if __name__ == "__main__":
    main()
