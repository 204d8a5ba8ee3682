"""Weights with their model card."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from vasculome.errors import UserError
from vasculome.storage.weights import (
    card_path,
    check_weights,
    copy_weights,
    fill,
    read_weights,
    shipped,
    write_weights,
)

CARD = {"name": "tiny", "architecture": "stulm", "arguments": {"n_dims": 2}, "seed": 3}


@pytest.fixture
def path(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3).T, "count": torch.tensor(7)}
    write_weights(tmp_path / "tiny.safetensors", tensors, CARD)
    return tmp_path / "tiny.safetensors"


def test_weights_come_back_with_their_card(path):
    tensors, card = read_weights(path)
    assert tensors["a"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert int(tensors["count"]) == 7
    assert CARD.items() <= card.items()
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    # Any other program reads them too.
    assert load_file(path)["a"].shape == (3, 2)


def test_same_tensors_same_bytes(path, tmp_path):
    tensors, card = read_weights(path)
    again = write_weights(tmp_path / "again.safetensors", dict(reversed(tensors.items())), card)
    assert again == card["sha256"]


def test_weights_stored_in_half_the_space(path, tmp_path):
    tensors = {"a": torch.linspace(-3, 3, 1000), "count": torch.tensor(7)}
    sizes = {}
    for half in (False, True):
        place = tmp_path / f"{half}.safetensors"
        write_weights(place, tensors, CARD, half=half)
        sizes[half] = place.stat().st_size
        back, _ = read_weights(place)
        assert back["a"].dtype == torch.float32 and int(back["count"]) == 7
        torch.testing.assert_close(back["a"], tensors["a"], rtol=2**-11 if half else 0, atol=0)
    assert sizes[False] - sizes[True] == 2000


def test_a_copy_holds_the_same_bytes_and_more_in_its_card(path, tmp_path):
    halves = tmp_path / "halves.safetensors"
    write_weights(halves, {"a": torch.ones(8)}, CARD, half=True)
    for source in (path, halves):
        copy = tmp_path / "copy.safetensors"
        digest = copy_weights(source, copy, {"seeds": [1, 2]})
        assert copy.read_bytes() == source.read_bytes()
        assert check_weights(copy) == {**check_weights(source), "seeds": [1, 2]}
        assert digest == check_weights(copy)["sha256"]


@pytest.mark.parametrize("size", [0, 5, 60])
def test_a_truncated_file_is_refused(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"not the weights that tiny\.json tells of"):
        read_weights(path)


def test_a_changed_byte_is_noticed(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="not the weights"):
        read_weights(path)


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_file_is_named(path, which):
    gone = (path, card_path(path))[which]
    gone.unlink()
    with pytest.raises(UserError, match=f"{gone.name}.*cannot be read"):
        read_weights(path)


@pytest.mark.parametrize(
    ("text", "says"), [("{", "not JSON"), ("[]", "no model card"), ('{"name": "x"}', "it lacks")]
)
def test_what_is_no_card(path, text, says):
    card_path(path).write_text(text)
    with pytest.raises(UserError, match=says):
        read_weights(path)


def test_weights_that_are_no_safetensors(path):
    path.write_bytes(b"PK\x03\x04 a pickle in a zip, maybe")
    card = json.loads(card_path(path).read_text())
    card["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    card_path(path).write_text(json.dumps(card))
    with pytest.raises(UserError, match="no weights, or damaged"):
        read_weights(path)


def test_a_weight_that_is_not_finite(tmp_path):
    path = tmp_path / "bad.safetensors"
    write_weights(path, {"a": torch.tensor([1.0, float("nan")])}, CARD)
    with pytest.raises(UserError, match="a holds values that are not finite"):
        read_weights(path)


def test_weights_that_do_not_ship():
    with pytest.raises(UserError, match="no weights 'none_such'"):
        shipped("none_such")


def test_a_card_is_checked_without_torch(path):
    """The workflow reads it before anything runs, and torch takes seconds to import."""
    look = (
        "import sys; from pathlib import Path; from vasculome.storage.weights import check_weights;"
        "print(check_weights(Path(sys.argv[1]))['seed'], 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", look, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3", "False"]
    path.write_bytes(b"other")
    with pytest.raises(UserError, match="not the weights"):
        check_weights(path)


def _layer(shape=(3, 2), dtype=torch.float32, name="weight"):
    layer = torch.nn.Module()
    layer.register_parameter(name, torch.nn.Parameter(torch.zeros(shape, dtype=dtype)))
    return layer


def test_weights_fill_the_network_they_are_of(path):
    layer = _layer()
    fill(layer, {"weight": torch.arange(6.0).view(3, 2)}, path=path)
    assert layer.weight.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (_layer(name="kernel"), "kernel is missing"),
        (torch.nn.Module(), "it has no weight"),
        (_layer((2, 3)), r"weight is \(3, 2\) instead of \(2, 3\)"),
        (_layer(dtype=torch.float64), "weight is torch.float32 instead of torch.float64"),
    ],
)
def test_weights_of_another_network_are_refused(path, layer, says):
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(UserError, match=rf"tiny\.json tells of: {says}"):
        fill(layer, {"weight": torch.ones(3, 2)}, path=path)
    assert all(torch.equal(before[name], v) for name, v in layer.state_dict().items())
