"""The cache on disk: found again without a compiler, safe between processes, checked, bounded."""

import multiprocessing
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import rsref_fast
from rsref import cells
from rsref_fast.cpu import cache, objects

PROGRAM = """
import sys, numpy as np
from rsref import cells, set_random_seed
from rsref.testing.arguments import random_arguments
import rsref_fast
set_random_seed(0)
cell = cells.SimpleRNNCell(3)
cell.build((None, 2))
engine = rsref_fast.compile(cell)
arguments = random_arguments(engine.recurrence).cast(np.float32)
ys, _, tape = arguments.forward(engine)
engine.backward(tape, [np.ones_like(y) for y in ys], [None])
print("numba" in sys.modules, float(np.sum(ys[0])))
"""


def start(folder):
    environment = {**os.environ, "RSREF_FAST_CACHE": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def answer(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.split()


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "cache"
    return folder, answer(start(folder))[1]


def test_what_is_there_needs_no_compiler(filled):
    folder, value = filled
    assert answer(start(folder)) == ["False", value]


def test_the_folder_is_the_users_own_and_holds_the_source(filled):
    folder, _ = filled
    assert folder.stat().st_mode & 0o777 == 0o700
    assert any("def shard(P, N, Q):" in p.read_text() for p in folder.glob("*.py"))
    assert not list(folder.glob("*.tmp"))


DAMAGES = (lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1]))


def test_a_damaged_file_is_compiled_again(filled):
    """Each kind of damage in another file, none of which is read: what was found there is written anew."""
    folder, value = filled
    files = sorted(folder.glob("*.o"), key=lambda file: file.stat().st_size)
    whole = {file: file.read_bytes() for file in files[: len(DAMAGES)]}
    for damaged, (file, content) in zip(DAMAGES, whole.items(), strict=True):
        file.write_bytes(damaged(content))
    assert answer(start(folder)) == ["True", value]
    assert None not in map(cache._read, whole)
    assert answer(start(folder)) == ["False", value]


def fetch_again_and_again(key, barrier):
    """Fetch pieces that other processes fetch at the same time, and check that each is whole."""
    for i in range(20):
        barrier.wait(60)
        piece = bytes([i]) * 1_000_000
        assert cache.fetch(f"{key}{i}", "", lambda piece=piece: (piece, "name")) == (piece, "name")


def test_it_is_safe_between_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("RSREF_FAST_CACHE", str(tmp_path))
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=fetch_again_and_again, args=("key", barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(list(tmp_path.glob("*.o"))) == 20
    assert not list(tmp_path.glob("*.tmp"))


def test_a_folder_in_the_users_home(tmp_path, monkeypatch):
    """Where no shell has read the variable, as in a file of settings, ~ is still in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RSREF_FAST_CACHE", "~/kernels")
    assert cache.folder() == tmp_path / "home" / "kernels"


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setenv("RSREF_FAST_CACHE", str(blocked / "cache"))
    assert cache.fetch("key", "", lambda: (b"code", "name")) == (b"code", "name")


def test_a_home_that_nobody_knows_is_done_without(monkeypatch):
    """As for a user whom the system does not list, where the variable HOME is not set either."""
    monkeypatch.setenv(cache.VARIABLE, "~a_user_that_there_is_not/cache")
    assert cache.fetch("a" * 40, "", lambda: (b"code", "name")) == (b"code", "name")


def test_machine_code_is_loaded_once(tmp_path, monkeypatch):
    """Engines of the same step share it: it is never freed."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    layer = cells.GRUCell(3).get_layer(dtype="float32", engine=rsref_fast.compile)
    layer(np.zeros((1, 2, 4)))
    loaded = len(objects._loaded)
    for one in (pickle.loads(pickle.dumps(layer)), layer):
        one.truncate = 3  # which makes another engine
        one(np.zeros((1, 2, 4)))
    assert len(objects._loaded) == loaded


def test_files_that_can_only_be_read_are_used(tmp_path, monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError

    monkeypatch.setenv("RSREF_FAST_CACHE", str(tmp_path))
    cache.fetch("key", "the source", lambda: (b"code", "name"))
    monkeypatch.setattr(os, "utime", refused)
    assert cache.fetch("key", "", refused) == (b"code", "name")
    monkeypatch.setattr(os, "replace", refused)
    assert cache.fetch("other", "", lambda: (b"code", "name")) == (b"code", "name")
    assert {p.name for p in tmp_path.iterdir()} == {"key.o", "key.py"}


def test_the_oldest_files_go(tmp_path, monkeypatch):
    monkeypatch.setenv("RSREF_FAST_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "LIMIT", 5000)
    keys = [cache.key_of(str(i)) for i in range(9)]
    for i, key in enumerate(keys):
        cache.fetch(key, "", lambda: (bytes(1000), "name"))
        os.utime(tmp_path / f"{key}.o", (i, i))
    left = {p.stem for p in tmp_path.glob("*.o")}
    assert keys[-1] in left
    assert keys[0] not in left
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 5000


def test_files_of_others_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("RSREF_FAST_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "LIMIT", 2000)
    for name in ("thesis.o", "notes.tmp", "f" * 40):
        (tmp_path / name).write_bytes(bytes(3000))
        os.utime(tmp_path / name, (1, 1))
    key = cache.key_of("")
    cache.fetch(key, "the source", lambda: (bytes(1000), "name"))
    assert {p.name for p in tmp_path.iterdir()} == {"thesis.o", "notes.tmp", "f" * 40, f"{key}.o", f"{key}.py"}


def test_the_key_tells_sources_versions_and_processors_apart():
    assert len({cache.key_of("a", "v1"), cache.key_of("b", "v1"), cache.key_of("a", "v2"), cache.key_of("av1")}) == 4
