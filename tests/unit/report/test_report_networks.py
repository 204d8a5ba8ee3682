import json
import re

import numpy as np
import pytest

from vasculome.config import parse_config
from vasculome.errors import UserError
from vasculome.report.networks import write_models_report
from vasculome.report.training_charts import learning_curves, smoothed

SCORES = {0: (0.25, 0.75, 0.5), 7: (0.25, 0.35, 0.65)}


def _record(seed, *, steps=30, precision=0.5):
    scores = SCORES[seed]
    best = int(np.argmax(scores))
    metrics = [{"score": score, "precision": precision} for score in scores]
    return {
        "model": "finder",
        "seed": seed,
        "device": "processor",
        "threads": 1,
        "parameters": 12345,
        "steps": steps,
        "best_step": 10 * (best + 1),
        "metrics": metrics[best],
        "curves": {
            "step": list(range(steps)),
            "loss": [float(steps - i) for i in range(steps)],
            "seconds": [0.5 * (i + 1) for i in range(steps)],
            "validated": [10, 20, 30],
            "metrics": metrics,
        },
        "peak_bytes": 52_000_000 + seed * 1_000_000,
    }


@pytest.fixture
def folder(tmp_path):
    manifest = {
        "summary": {
            "chosen_seed": 0,
            "metrics_over_seeds": {
                "score": {"mean": 0.7, "sd": 0.0707, "seeds": 2},
                "precision": {"mean": None, "sd": None, "seeds": 0},
            },
        }
    }
    for seed in SCORES:
        path = tmp_path / f"finder/seed-{seed}/record.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(_record(seed, precision=None)))
    (tmp_path / "finder/manifest.json").write_text(json.dumps(manifest))
    return tmp_path


MODELS = parse_config(
    {"models": {"finder": {"network": "bubble_net", "seeds": [0, 7]}}}, where=""
).model_dump(mode="json")["models"]


def test_a_curve_a_seed_with_a_ring_where_it_is_best():
    loss, score, precision = learning_curves([_record(0), _record(7)]).axes[:3]
    assert [line.get_label() for line in loss.lines] == ["seed 0", "seed 7"]
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), np.arange(1, 31))
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), np.arange(30, 0, -1))
    curves, rings = score.lines[::2], score.lines[1::2]
    for line, values in zip(curves, SCORES.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [10, 20, 30])
        np.testing.assert_array_equal(line.get_ydata(), values)
    assert [tuple(map(float, r.get_xydata()[0])) for r in rings] == [(20, 0.75), (30, 0.65)]
    assert precision.get_ylim()[0] == 0
    assert loss.get_xlim() == score.get_xlim()


def test_of_many_losses_means_are_drawn():
    steps, losses = smoothed(range(1000), np.arange(1000) % 10)
    assert len(steps) == 100
    np.testing.assert_allclose(losses, 4.5)
    np.testing.assert_allclose(steps, 10 * np.arange(100) + 5.5)


def test_a_metric_without_numbers_says_so():
    *_, precision = learning_curves([_record(0, precision=None)]).axes
    assert any("no bubble" in text.get_text() for text in precision.texts)


def test_the_page_tells_metrics_with_their_spread_memory_and_time(folder):
    write_models_report(folder, models=MODELS, out=folder / "report.html")
    page = (folder / "report.html").read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "0.7 ± 0.071" in text, "mean and standard deviation over seeds"
    assert "12,345" in text and "59" in text, "parameters, and the larger peak memory in MB"
    assert re.search(r"seed 0 processor 20 15 2 52", text), (
        "best step, time, steps a second, memory"
    )
    assert "weights of seed 0" in text
    assert re.search(r"score 0.7 0.0707 0.75 0.65", text)
    assert (folder / "figures/finder_learning.png").read_bytes()[:4] == b"\x89PNG"


def test_a_damaged_record_is_named(folder):
    path = folder / "finder/seed-7/record.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(UserError, match="cannot be read") as caught:
        write_models_report(folder, models=MODELS, out=folder / "report.html")
    assert str(path) in str(caught.value)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("network", ["bubble_net", "stulm", "site_finder"])
def test_every_kind_of_network_has_its_words(folder, network):
    settings = {"finder": {"network": network, "seeds": [0, 7]}}
    models = parse_config({"models": settings}, where="").model_dump(mode="json")["models"]
    write_models_report(folder, models=models, out=folder / "report.html")
    assert "trained on simulated movies (broad_2d)" in (folder / "report.html").read_text("utf-8")


def test_the_page_tells_what_volumes_were_learnt_from(folder):
    manifest = json.loads((folder / "finder/manifest.json").read_text())
    rows = [{"image": "a.tif"}, {"image": "b.tif"}, {"image": "c.tif"}]
    volumes = {"sheet": "v.tsv", "labelled": rows[:2], "unlabelled": [], "held_out": rows[2:]}
    manifest["summary"]["volumes"] = volumes
    (folder / "finder/manifest.json").write_text(json.dumps(manifest))
    settings = {"network": "student", "seeds": [0, 7], "volumes": "v.tsv", "rendered": 0.25}
    models = parse_config({"models": {"finder": settings}}, where="").model_dump(mode="json")
    write_models_report(folder, models=models["models"], out=folder / "report.html")
    page = (folder / "report.html").read_text()
    assert "2 volumes with labels and rendered vessels (broad), 25 % of the patches" in page
    assert "those of v.tsv" in page and "Held out and validated on: c.tif" in page
    volumes |= {"labelled": [], "unlabelled": rows[:1], "held_out": []}
    (folder / "finder/manifest.json").write_text(json.dumps(manifest))
    write_models_report(folder, models=models["models"], out=folder / "report.html")
    page = (folder / "report.html").read_text()
    assert "1 volume without labels and rendered vessels (broad), which alone have labels" in page
    assert "Held out" not in page
