"""What the benchmarks reckon with: the work of a drawn step, and what they say of a goal."""

import inspect
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rich")

from benchmarks import cuda, engines, report, work
from benchmarks.__main__ import commit, compared_with, decisive, main, row_of
from benchmarks.cases import Case, beside
from benchmarks.engines import Engine, EngineError, in_turn
from benchmarks.goals import Verdict, explained, throughput
from benchmarks.limits import Ceilings
from benchmarks.measure import error_of
from benchmarks.problems import problem_of
from benchmarks.rows import in_series, limit_of, replaced
from rsref.ops.base import REGISTRY
from rsref.ops.pointwise import Pointwise


def work_of(cell, suite="custom", lengths=""):
    return work.work_of(problem_of(Case(suite, cell, 64, 29, 12, 16, lengths)))


def test_an_lstm():
    found = work_of("LSTM")
    assert found.flops == 3 * 2 * 64 * 29 * 4 * 16 * (12 + 16)
    assert found.functions == 64 * 29 * 5 * 16
    assert sorted(found.again) == [64 * 29 * 16] * 5
    assert work_of("LSTM", "forward").again == ()
    assert (found.weights, found.passes) == (4 * 16 * 4 * 16, 2 * 29)
    assert (found.stepped, found.shared) == (2 * 2 * 64 * 29 * 4 * 16 * 16, False)


def test_keys_of_an_attention_are_made_once():
    memory, gru, step = 64 * 29 * 12 * 16, 3 * 16 * (12 + 16), 16 * 16 + 29 * (16 + 12)
    found = work_of("AttentionDecoder")
    assert found.flops == 3 * 2 * (memory + 64 * 29 * (gru + step))
    assert found.functions == 64 * 29 * (29 * (16 + 1) + 3 * 16)
    assert found.attended == ((2 * 64 * 29 * 12, 4 * 64 * 29 * 12),)  # what the weights average; keys meet no product
    assert work_of("LSTM").attended == ()


def test_a_memory_is_read_at_every_step():
    ceilings = Ceilings(1e9, {1_000: 4e9, 100_000: 1e9}, 1e9)
    parts = ceilings.parts(work.Work(0, 0, (), 0, 10, attended=((200, 1_000), (9_000, 1_000))))
    assert parts["attended_seconds"] == pytest.approx(10 * (250e-9 - 200e-9))
    assert ceilings.parts(work.Work(0, 0, (), 0, 10))["attended_seconds"] == 0


def test_masked_steps_do_not_count():
    problem = problem_of(Case("lengths", "LSTM", 64, 29, 12, 16, "vowels"))
    assert work.work_of(problem).functions == problem.lengths.sum() * 5 * 16


def test_only_recurrent_weights_are_read_at_every_step():
    layer = 4 * 16 * 4 * 16
    assert work_of("LSTM x3").weights == 3 * layer  # kernels of the upper layers are read once for all steps
    assert work_of("Readout").weights == layer + 4 * 12 * 4 * 16 + 4 * 16 * 12


def test_every_function_counts():
    named = re.compile(r"np\.(exp|expm1|log|log1p|power|sinh?|cosh?|tanh?|arctan)\(|angle\(|error_function(_above)?\(")
    pointwise = {name: op for name, op in REGISTRY.items() if isinstance(op, Pointwise) and not name.startswith("_")}
    inside = {name: _formula(op) for name, op in pointwise.items()}
    assert {name for name, text in inside.items() if named.search(text)} == set(work.POINTWISE)


def _formula(op):
    """Return the source of an op's formula, without its derivatives."""
    text = inspect.getsource(op.formula)
    return text[text.index("lambda") :].split("(lambda")[0]


@pytest.mark.parametrize(
    ("seen", "best", "series", "at_most", "word"),
    [(2, 3, None, False, "reached"), (1, 3, None, False, "missed"), (1, 1.5, 1.2, False, "beyond the limit"),
     (1, 3, 1.5, False, "beyond the series"), (1, 3, 2.5, False, "missed"),
     (2, 1, None, True, "reached"), (3, 1, 1.5, True, "missed"), (3, 2.5, None, True, "beyond the limit"),
     (3, 1, 2.5, True, "beyond the series")],
)  # fmt: skip
def test_words_of_a_goal(seen, best, series, at_most, word):
    assert Verdict("goal", "case", 2, seen, best, at_most, series).word == word


def limits_of(**parts):
    nothing = dict.fromkeys(("products", "stepped", "functions", "again", "reading", "handover", "call"), 0.0)
    return {"engine": "rsref_fast", **{f"{name}_seconds": value for name, value in (nothing | parts).items()}}


@pytest.mark.parametrize(
    ("parts", "limit", "series"),
    [({"products": 9, "stepped": 3, "functions": 2}, 9, 11),
     ({"products": 9, "stepped": 3, "functions": 2, "reading": 5}, 9, 13),
     ({"products": 9, "stepped": 3, "functions": 6, "again": 4}, 10, 19),
     ({"products": 4, "stepped": 3, "functions": 2, "reading": 5, "handover": 1}, 5, 9),
     ({"products": 4, "stepped": 3, "functions": 2, "handover": 7, "call": 1}, 4, 12),
     ({"products": 4, "stepped": 3, "functions": 2, "call": 1, "fit": 8}, 4, 14),
     ({"products": 4, "stepped": 3, "functions": 2, "reading": 5, "attended": 6}, 5, 14)],
)  # fmt: skip
def test_parts_at_once_and_in_series(parts, limit, series):
    assert (limit_of(limits_of(**parts)), in_series(limits_of(**parts))) == (limit, series)


def test_functions_for_the_gradients_are_kept_or_computed_again():
    """Kept in a cache, written and read, or once more where memory is slower than the function."""
    ceilings = Ceilings(1e9, {1_000: 8e9, 100_000: 4e9}, 1e9)
    parts = ceilings.parts(work.Work(0, 1_250, (250, 1_000), 1_000, 0))
    assert parts["functions_seconds"] == pytest.approx(1_250e-9)
    assert parts["again_seconds"] == pytest.approx(250e-9 + 1_000e-9)
    assert ceilings.parts(work.Work(0, 0, (50_000,), 1_000, 0))["again_seconds"] == pytest.approx(50_000e-9)
    slow = Ceilings(1e9, {1_000: 8e9, 100_000: 4e9}, 0.5e9)
    assert slow.parts(work.Work(0, 0, (250,), 1_000, 0))["again_seconds"] == pytest.approx(250e-9)


def test_an_engine_that_took_less_than_the_parts_in_series():
    own, peer = limits_of(products=4, functions=4) | {"seconds": 10}, {"engine": "torch", "seconds": 6}
    assert explained([own]) == 0.8
    assert explained([own, peer]) == 0.6


CASE = Case("forward", "LSTM", 1, 2, 3, 4)


class Known:
    """An engine whose times are known."""

    def __init__(self, log, name, *times):
        self.log, self.name, self.times = log, name, iter(times)

    def turn(self, seconds):
        self.log.append(self.name)
        return [next(self.times)] * 3

    def stop(self):
        self.log.append(f"{self.name} stops")


def test_engines_take_turns(monkeypatch):
    """Who decides nothing has one; of the others the best turn counts."""
    monkeypatch.setattr(engines, "when_there_are", lambda: 2.0)
    monkeypatch.setattr(engines, "PAUSE", 0)
    log = []
    ours, peer, slow = Known(log, "ours", 3, 1, 2), Known(log, "peer", 4, 5, 6), Known(log, "slow", 9)
    found = in_turn({"ours": ours, "peer": peer, "slow": slow}, 3, 0.1, lambda name, least: least[name] < 8)
    assert log == ["ours", "peer", "slow", "slow stops", "peer", "ours", "ours", "peer"]
    assert found["ours"] == [[3] * 3, [1] * 3, [2] * 3]
    row = row_of(CASE, "ours", SimpleNamespace(bytes=7, error=1e-6), found["ours"])
    assert (row["seconds"], row["spread"], row["bytes"], row["error_vs_rsref"]) == (1, 3, 7, 1e-6)


def test_who_fails_in_a_turn_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(engines, "when_there_are", lambda: 2.0)
    monkeypatch.setattr(engines, "PAUSE", 0)

    class Failing(Known):
        def turn(self, seconds):
            if self.log:
                raise EngineError("failing: out of memory")
            return super().turn(seconds)

    found = in_turn({"failing": Failing([], "", 1), "ours": Known([], "", 2, 3)}, 2, 0.1, lambda name, least: True)
    assert found == {"ours": [[2] * 3, [3] * 3]}
    assert capsys.readouterr().err == "failing: out of memory\n"


def test_an_engine_in_a_process_of_its_own(tmp_path):
    with Engine("torch", CASE, str(tmp_path)) as engine:
        assert engine.error < 1e-5
        for _ in range(2):
            times = engine.turn(0.01)
            assert len(times) > 1
            assert min(times) > 0
    assert engine.process.poll() is not None
    with pytest.raises(EngineError, match="torch, LSTM 1,2,3,4: failed"):
        engine.turn(0.01)
    with pytest.raises(EngineError):
        Engine("no such engine", CASE, str(tmp_path))


def test_a_wrong_engine_is_not_timed(tmp_path):
    file = tmp_path / "LSTM_1_2_3_4_False.npz"
    np.savez(file, y=np.ones((1, 2, 4), np.float32))
    with pytest.raises(EngineError, match=f"torch is wrong at {CASE}"):
        Engine("torch", CASE, str(tmp_path))


def test_errors_of_an_engine():
    """Relative to the largest value, in what the mask leaves; a number that is none is no small error."""
    right = {"y": np.array([[[4.0], [2.0]]]), "w0": np.zeros(2)}
    mask = np.array([[True, False]])
    assert error_of({"y": [[[3.0], [9.0]]]}, right, mask) == 0.25
    assert error_of({"y": lambda: right["y"], "w0": np.array([0.0, 1e-3])}, right, None) == 1e-3
    assert np.isnan(error_of({"w0": [0.0, np.nan], "y": right["y"]}, right, None))


@pytest.mark.parametrize(("engine", "suite"), [("rsref_fast checkpoint", "memory"), ("keras jax", "shop")])
def test_what_is_timed_is_compared(engine, suite, tmp_path, monkeypatch):
    """Long sequences by a short part of them, Keras's fit by a step of SGD."""
    case = Case(suite, "LSTM x3" if suite == "shop" else "LSTM", 2, 60, 3, 4)
    with Engine(engine, case, str(tmp_path)) as running:
        assert 0 < running.error < 1e-4
    (file,) = tmp_path.iterdir()
    with np.load(file) as stored:
        wrong = {name: value * (1.001 if name == "w0" else 1) for name, value in stored.items()}
    np.savez(file, **wrong)
    with pytest.raises(EngineError, match="is wrong at"):
        Engine(engine, case, str(tmp_path))


def test_drawn_cells_have_our_lstm_beside_them():
    """Its GFLOP/s are those of its own work, and count before those that another suite measured."""
    case = Case("custom", "RHN", 2, 3, 4, 5)
    others = beside(case)
    assert others == {"rsref_fast LSTM": ("rsref_fast", Case("custom", "LSTM", 2, 3, 4, 5))}
    assert decisive("custom", "rsref_fast LSTM", {"rsref_fast LSTM": 9, "drawn jax": 1})
    found = compared_with(others, {"rsref_fast LSTM": [[4e-6] * 3, [2e-6, 2e-6, 1e-6]]})
    assert found == {"lstm_gflops": pytest.approx(3 * 2 * 2 * 3 * 4 * 5 * (4 + 5) / 2e-6 / 1e9)}
    row = limits_of(products=1) | {"seconds": 2, "gflops": 3, "ratio_to_limit": 0.5}
    training = {"LSTM 2,3,4,5": [{**row, "gflops": 5}]}
    for own, seen in ((row, 3 / 5), (row | {"lstm_gflops": 4}, 3 / 4)):
        (verdict,) = throughput({"custom": {str(case): [own]}, "training": training})
        assert verdict.seen == seen
    assert compared_with(others, {}) == {}


def test_keras_fit_has_an_idle_one_beside_it(tmp_path):
    case = Case("shop", "LSTM x3", 2, 6, 3, 4)
    others = beside(case)
    assert all(decisive("shop", name, {name: 9, "keras jax": 1}) for name in others)
    assert compared_with(others, {"idle jax": [[3.0], [2.0]], "idle torch": [[9.0]]}) == {"fit_seconds": 2.0}
    with Engine(*others["idle jax"], str(tmp_path)) as idle:
        assert min(idle.turn(0.01)) > 0
    assert beside(Case("training", "LSTM", 2, 6, 3, 4)) == {}


@pytest.mark.parametrize("kind", ["drawn jax", "loop torch"])
def test_an_attention_decoder_by_hand(kind, tmp_path):
    """The peers' keys are made before the loop; the answers are those of the drawn cell."""
    with Engine(kind, Case("custom", "AttentionDecoder", 2, 3, 4, 5), str(tmp_path)) as running:
        assert running.error < 1e-5


def test_later_turns_leave_out_who_decides_nothing():
    least = {"rsref_fast": 9, "torch": 1.0, "jax scan": 1.6, "keras jax": 2, "keras torch": 2.5, "keras tensorflow": 4}
    kept = {engine for engine in least if decisive("training", engine, least)}
    assert kept == {"rsref_fast", "torch", "keras jax", "keras torch"}
    assert {engine for engine in least if decisive("forward", engine, least)} == {"rsref_fast", "torch"}
    assert all(decisive("memory", engine, least) for engine in least)


@pytest.mark.parametrize(
    ("given", "words"),
    [(["--engines", "torhc"], "--engines: torhc unknown"), (["--only", "LSTMM"], "--only: no case begins")],
)
def test_names_that_there_are_not(given, words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "--suite", "forward", *given])
    with pytest.raises(SystemExit):
        main()
    assert words in capsys.readouterr().err


def test_rows_are_replaced_by_suite_and_case():
    old = [{"suite": s, "case": "a", "engine": "torch", "seconds": 1} for s in ("forward", "training")]
    new = [{**old[0], "seconds": 2}]
    assert [row["seconds"] for row in replaced(old, new)] == [2, 1]
    other = [{**old[0], "engine": "rsref_fast", "seconds": 3}]
    assert [row["seconds"] for row in replaced(old, other)] == [3, 1]
    assert [row["seconds"] for row in replaced(old, other, others=True)] == [1, 3, 1]


def test_a_case_without_ours():
    """A table says what there is."""
    rows = [{"suite": "forward", "case": "LSTM 1,2,3,4", "engine": "torch", "seconds": 1e-3}]
    assert report.line(rows) == "LSTM 1,2,3,4: torch 1.00 ms; times the fastest peer -, of the limit -"


def test_tables_of_a_gpu_and_what_is_kept_of_a_run(monkeypatch, tmp_path):
    """A case in which ours failed has its peers' times; a row says which code was measured."""
    torch = pytest.importorskip("torch")
    names = ("rsref_fast", "torch"), ("torch",)
    rows = [
        {"suite": "forward", "case": f"case {i}", "engine": name, "seconds": 2e-3 if name == "torch" else 1e-3}
        for i, own in enumerate(names)
        for name in own
    ]
    lines = cuda.shown(rows).splitlines()
    assert "| case 0 | 1.00 | 2.00 (2) |" in lines
    assert "| case 1 |  | 2.00 |" in lines
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(cuda, "rows_of", lambda *about: rows)
    file = tmp_path / "cuda.json"
    monkeypatch.setattr("sys.argv", ["cuda", "--engines", "torch", "--json", str(file)])
    cuda.main()
    found = json.loads(file.read_text())["rows"]
    assert [{**row, "commit": commit()} for row in rows] == found


def test_options_of_other_suites(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "--suite", "cuda", "--engines", "torch"])
    with pytest.raises(SystemExit):
        main()
    assert "--suite cuda takes --quick alone" in capsys.readouterr().err


def test_a_limit_that_ours_set_proves_nothing():
    """Neither that a goal cannot be reached, nor that it is."""
    near = Verdict("goal", "case", 0.6, 1.0, 1.0, near=True)
    assert near.by_own_limit
    assert not Verdict("goal", "case", 0.6, 0.9, 1.0, near=True).by_own_limit
    assert not Verdict("goal", "case", 1.0, 1.0, 1.0).by_own_limit
