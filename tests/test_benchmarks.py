"""The benchmark of CIF: its definition is right, its tables are whole, and it hides no errors."""

import csv
import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numba
import pytest
import torch

from llmasr import cif

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
bench = importlib.import_module("cif")
accuracy, peers = bench.accuracy, bench.peers

TINY = bench.Plan(
    {"cases": (bench.Shape(1, 20, 4), bench.Shape(3, 40, 8))},
    precise=(bench.Shape(2, 50, 3),),
    scaled_frames=(60,),
    scaled_rows=8,
    rounds=2,
    turn=1e-4,
)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads(), numba.get_num_threads()
    yield
    torch.set_num_threads(before[0])
    numba.set_num_threads(before[1])


@pytest.fixture
def no_peers(monkeypatch):
    monkeypatch.setattr(peers, "peers", lambda: ([], ["torch-cif is not measured: pip install"]))


def ours(**changes):
    return [replace(candidate, **changes) for candidate in peers.our_backends("cpu")]


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_definition_equals_the_reference_and_its_gradients():
    speech = peers.random_speech(peers.Shape(3, 70, 5, torch.float64), "cpu")
    d_tokens = accuracy.incoming(speech)
    tokens = cif(speech.hidden, speech.alpha, speech.lengths, backend="reference").tokens
    gradients = torch.autograd.grad(tokens, (speech.hidden, speech.alpha), d_tokens)
    exact = accuracy.exact(speech, d_tokens)
    torch.testing.assert_close(exact.tokens, tokens)
    torch.testing.assert_close(exact.d_hidden, gradients[0])
    valid = torch.arange(70) < speech.lengths[:, None]
    torch.testing.assert_close(exact.d_alpha[valid].float(), gradients[1][valid])


@pytest.mark.usefixtures("no_peers")
def test_a_run_writes_every_back_end_and_the_floor(tmp_path, capsys):
    assert bench.main("cpu", 1, TINY, tmp_path) == 0
    assert "torch-cif is not measured" in capsys.readouterr().out
    rows = rows_of(tmp_path / "cif.csv")
    names = {"floor", *(candidate.name for candidate in ours())}
    found = [(row["implementation"], row["pass"], row["T"]) for row in rows]
    assert sorted(found) == sorted(
        (name, which, frames) for name in names for which in bench.PASSES for frames in ("20", "40")
    )
    for row in rows:
        assert float(row["median_ms"]) >= float(row["min_ms"]) > 0
        assert float(row["ratio_to_floor"]) > 0
        assert row["machine"]
        assert row["torch"] == torch.__version__
        if row["implementation"] != "floor":
            assert float(row["max_token_error"]) < 1e-5
    tests = {row["test"]: row for row in rows_of(tmp_path / "cif_accuracy.csv")}
    assert float(tests["errors"]["rel_dalpha_error"]) < 1e-5
    assert tests["scaled to targets"]["lost_rows"] == "0"


@pytest.mark.usefixtures("no_peers")
def test_a_run_replaces_its_own_rows_only(tmp_path):
    plan = replace(TINY, series={"cases": TINY.series["cases"][:1]}, precise=(), scaled_frames=())
    for threads in (1, 1, 2):
        bench.main("cpu", threads, plan, tmp_path)
    rows = rows_of(tmp_path / "cif.csv")
    assert [row["threads"] for row in rows] == sorted(row["threads"] for row in rows)
    assert len(rows) == 2 * len(bench.PASSES) * (1 + len(ours()))


def test_a_wrong_back_end_gets_no_speedup():
    def wrong(speech):
        return 1.001 * cif(speech.hidden, speech.alpha, speech.lengths, backend="reference").tokens

    right = ours()[0]
    peer = replace(right, name="peer", is_ours=False)
    broken = replace(right, name="broken", fire=wrong)
    measured = bench.Bench([right, broken, peer], TINY, "cpu", 1)
    assert list(measured.wrong) == ["broken"]
    batch = bench.Batch.random(TINY.series["cases"][1], "cpu")
    found = measured.times(batch, bench.PASSES[0])
    rows = {row["implementation"]: row for row in found}
    assert rows[right.name]["best_peer"] == "peer"
    assert "speedup_over_best_peer" not in rows["broken"]
    assert "differs" in rows["broken"]["note"]


def test_an_endless_call_is_skipped_and_said_to_be():
    measured = bench.Bench(ours(is_loop=True)[:1], TINY, "cpu", 1)
    first, second = (bench.Batch.random(shape, "cpu") for shape in TINY.series["cases"])
    candidate, which = measured.candidates[0], bench.PASSES[1]
    measured.times(first, which)
    cost, _ = measured.last_seen[candidate.name, which]
    measured.last_seen[candidate.name, which] = cost, 10.0
    row = measured.times(second, which)[1]
    assert row["calls"] == 0
    assert "skipped: about 240 s" in row["note"]


def test_lost_tokens_are_counted():
    def lossy(speech, targets):
        mass = (torch.arange(int(targets.max())) < targets[:, None]).float()
        mass[0, targets[0] - 1] = 0
        mass[1, 0] = 1.25
        return mass[..., None]

    candidate = replace(ours()[0], scale=lossy)
    found = accuracy.lost_tokens(candidate, peers.random_speech(peers.Shape(4, 90, 1), "cpu"))
    assert found == (1, 0.25)


def test_peers_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_cif", None)
    monkeypatch.setitem(sys.modules, "funasr", None)
    found, missing = peers.peers()
    assert found == []
    assert "pip install torch-cif" in missing[0]
    assert "pip install --no-deps funasr" in missing[1]


def test_the_plot_needs_no_peers(tmp_path):
    pytest.importorskip("matplotlib")
    plot = bench.plot
    series = {name: (bench.Shape(1, 20, 4), bench.Shape(1, 40, 8)) for name in ("frames", "width")}
    measured = bench.Bench(ours()[:1], replace(TINY, series=series), "cpu", 1)
    times, _ = bench.measure(measured)
    bench.write(tmp_path / "cif.csv", bench.TIME_COLUMNS, times, bench.run_card("cpu", 1))
    assert plot.draw(tmp_path, "cuda") is None
    assert plot.draw(tmp_path, "cpu").stat().st_size > 10_000
