"""Coordinates packed into keys."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.sparse.keys import Bounds, Packing


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(-9, 9), st.integers(-9, 9)), min_size=1))
@settings(max_examples=50, deadline=None)
def test_keys_keep_the_order_of_rows_and_give_the_rows_back(rows):
    coordinates = torch.tensor(sorted(rows), dtype=torch.int32)
    packing = Packing(Bounds.of(coordinates))
    keys = packing.pack(coordinates)
    assert bool((keys[1:] > keys[:-1]).all())
    assert torch.equal(packing.unpack(keys), coordinates)


def test_a_box_far_from_the_origin_has_keys_too():
    low = torch.tensor([[0, 2**30, -(2**30), 2**31 - 9, 5]], dtype=torch.int32)
    rows = torch.cat([low, low + torch.tensor([[0, 7, 2**20, 8, 2**30]], dtype=torch.int32)])
    packing = Packing(Bounds.of(rows))
    keys = packing.pack(rows)
    assert bool((keys[1:] > keys[:-1]).all())
    assert torch.equal(packing.unpack(keys), rows)


def test_a_box_beyond_63_bits_is_refused():
    with pytest.raises(ValueError, match="63 bits"):
        Packing(Bounds((0, 0, 0), (0, 2**32, 2**31)))
