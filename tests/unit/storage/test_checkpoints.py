"""A checkpoint is read as it was written, or refused."""

from __future__ import annotations

import json
import math
import pickle

import pytest
import safetensors.torch
import torch

from vasculome.errors import UserError
from vasculome.storage.checkpoints import read_checkpoint, write_checkpoint

TENSORS = {
    "network.weight": torch.arange(6, dtype=torch.float32).view(2, 3),
    "network.count": torch.tensor(7),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "empty": torch.empty(0, 4),
}
STATE = {"step": 12, "record": {"loss": [1.5, math.inf], "metrics": [{"score": 0.1 + 0.2}]}}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "some/folder/checkpoint.safetensors"
    write_checkpoint(path, TENSORS, STATE)
    tensors, state = read_checkpoint(path)
    assert state == STATE
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_other_programs_read_the_tensors(tmp_path):
    write_checkpoint(tmp_path / "c", TENSORS, STATE)
    loaded = safetensors.torch.load_file(tmp_path / "c")
    assert torch.equal(loaded["network.weight"], TENSORS["network.weight"])


def test_views_and_tensors_that_learn_are_kept_by_value(tmp_path):
    learning = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
    write_checkpoint(tmp_path / "c", {"turned": learning.T, "whole": learning}, {})
    tensors, _ = read_checkpoint(tmp_path / "c")
    assert torch.equal(tensors["turned"], learning.detach().T)
    assert not tensors["whole"].requires_grad


def test_same_content_same_bytes_and_nothing_else_in_the_folder(tmp_path):
    write_checkpoint(tmp_path / "a", TENSORS, STATE)
    write_checkpoint(tmp_path / "b", TENSORS, STATE)
    write_checkpoint(tmp_path / "b", TENSORS, STATE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_write_that_fails_leaves_the_one_before(tmp_path):
    path = tmp_path / "c"
    write_checkpoint(path, TENSORS, STATE)
    with pytest.raises(TypeError):
        write_checkpoint(path, TENSORS, {"step": object()})
    assert read_checkpoint(path)[1] == STATE


def _plain(tensors) -> bytes:
    return safetensors.torch.save(tensors)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        b"not a checkpoint at all",
        pickle.dumps({"weights": 1}),
        _plain({"weight": torch.ones(2)}),
        safetensors.torch.save({"w": torch.ones(2)}, {"state": "{no json"}),
    ],
    ids=["empty", "short", "text", "pickle", "weights without a state", "bad state"],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is no checkpoint of a training, or damaged") as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: is no checkpoint"):
        read_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("cut", [1, 9, 100])
def test_a_checkpoint_that_is_cut_is_refused(tmp_path, cut):
    path = tmp_path / "c"
    write_checkpoint(path, {"w": torch.ones(100)}, STATE)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(path)


def test_a_header_that_lies_about_its_length_is_refused(tmp_path):
    path = tmp_path / "c"
    write_checkpoint(path, {"w": torch.ones(4)}, STATE)
    content = bytearray(path.read_bytes())
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["w"]["data_offsets"] == [0, 16]
    content[:8] = (1 << 40).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(path)
