"""Kernel maps against a dictionary of coordinates."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vasculome.sparse import kernel_map as maps
from vasculome.sparse.coordinates import CoordinateManager
from vasculome.sparse.kernel_map import KernelMap
from vasculome.sparse.keys import Bounds, Packing, Points


def points(rows: set[tuple[int, ...]], stride: tuple[int, ...]) -> Points:
    columns = 1 + len(stride)
    coordinates = torch.tensor(sorted(rows), dtype=torch.int32).reshape(-1, columns)
    return Points(coordinates, Bounds.of(coordinates), stride)


def triples(kernel_map: KernelMap, rows: int = 5) -> Counter[tuple[int, int, int]]:
    """All (offset, in row, out row), each as often as it occurs."""
    found: Counter[tuple[int, int, int]] = Counter()
    if kernel_map.identity is not None:
        found.update((kernel_map.identity, row, row) for row in range(kernel_map.n_in))
    for batch in kernel_map.batches(rows):
        assert sum(batch.sizes) == len(batch.in_rows) == len(batch.out_rows) <= rows
        offsets = np.repeat(batch.offsets, batch.sizes)
        found.update(
            zip(offsets.tolist(), batch.in_rows.tolist(), batch.out_rows.tolist(), strict=True)
        )
    return found


def brute_force(source: Points, target: Points, sizes, dilation, centred):
    """The definition: axis 0 fastest, odd kernels centred, even ones from the point on."""
    where = {tuple(c): row for row, c in enumerate(source.coordinates.tolist())}
    found: Counter[tuple[int, int, int]] = Counter()
    for out_row, (sample, *place) in enumerate(target.coordinates.tolist()):
        for reverse in product(*(range(size) for size in sizes[::-1])):
            index = reverse[::-1]
            offset = 0
            for i, size in zip(reverse, sizes[::-1], strict=True):
                offset = offset * size + i
            neighbour = tuple(
                p + (i - (size // 2 if centred and size % 2 else 0)) * d * s
                for p, i, size, d, s in zip(
                    place, index, sizes, dilation, source.stride, strict=True
                )
            )
            row = where.get((sample, *neighbour))
            if row is not None:
                found[offset, row, out_row] += 1
    return found


@st.composite
def problems(draw):
    dimension = draw(st.integers(1, 4))
    axis = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(dimension))  # noqa: E731
    stride, ratio, sizes, dilation = axis(1, 2), axis(1, 3), axis(1, 3), axis(1, 2)
    place = st.tuples(st.integers(0, 1), *[st.integers(-3, 3)] * dimension)
    grid = lambda rows, unit: {  # noqa: E731
        (sample, *(c * u for c, u in zip(rest, unit, strict=True))) for sample, *rest in rows
    }
    source = points(grid(draw(st.sets(place, max_size=30)), stride), stride)
    if draw(st.booleans()):
        return source, source, sizes, dilation
    coarse = tuple(s * r for s, r in zip(stride, ratio, strict=True))
    return source, points(grid(draw(st.sets(place, max_size=15)), coarse), coarse), sizes, dilation


@settings(max_examples=150, deadline=None)
@given(problems(), st.booleans())
def test_pairs_are_those_of_the_definition(problem, centred):
    source, target, sizes, dilation = problem
    built = maps.build_kernel_map(
        source, target, kernel_size=sizes, dilation=dilation, centred=centred
    )
    expected = brute_force(source, target, sizes, dilation, centred)
    assert triples(built) == expected
    per_output = Counter(out_row for _, _, out_row in expected.elements())
    assert built.counts().tolist() == [per_output[row] for row in range(built.n_out)]
    swapped = Counter({(k, o, i): n for (k, i, o), n in expected.items()})
    assert triples(built.exchanged()) == swapped


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(-40, 40), st.integers(1, 4), st.integers(1, 3))
def test_the_search_of_cuda_and_the_merge_of_the_cpu_agree(problem, shift, length, step):
    source, target, _, _ = problem
    packing = Packing(source.bounds.merged(target.bounds))
    keys, queries = packing.pack(source.coordinates), packing.pack(target.coordinates)
    searched = maps._run_by_search(keys, queries, shift, length, step)
    merged = maps._run_by_merge(keys, queries, shift, length, step)
    for one, other in zip(searched, merged, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_an_offset_has_each_row_once_and_mirrored_offsets_are_not_stored():
    generator = torch.Generator().manual_seed(0)
    coordinates = torch.randint(0, 8, (200, 4), generator=generator, dtype=torch.int32)
    coordinates[:, 0] = 0
    source = points({tuple(c) for c in coordinates.tolist()}, (1, 1, 1))
    built = maps.build_kernel_map(source, source, kernel_size=(3, 5, 1), dilation=(1, 1, 1))
    assert built.identity == 7
    assert sum(where is None for where in built.slices) == 7
    for batch in built.batches(10**6):
        for part in (*batch.in_rows.split(batch.sizes), *batch.out_rows.split(batch.sizes)):
            assert len(part.unique()) == len(part)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(-20, 20), st.integers(-20, 20)), max_size=30),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
@settings(max_examples=50, deadline=None)
def test_coarser_coordinates_are_those_rounded_down(rows, factor):
    source = points(set(rows), (1, 1))
    manager = CoordinateManager(dimension=2, batch_size=2)
    key = manager.insert(source.coordinates, stride=(1, 1))
    coarse = manager.points(manager.strided(key, factor))
    a, b = factor
    expected = sorted({(n, y // a * a, x // b * b) for n, y, x in rows})
    assert list(map(tuple, coarse.coordinates.tolist())) == expected
    assert manager.strided(key, factor) == manager.strided(key, factor)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_a_transposed_convolution_reaches_the_sum_of_points_and_offsets(problem):
    source, _, sizes, dilation = problem
    dimension = len(sizes)
    manager = CoordinateManager(dimension=dimension, batch_size=2)
    key = manager.insert(source.coordinates, stride=source.stride)
    options = {"factor": source.stride, "kernel_size": sizes, "dilation": dilation}
    offsets = maps.kernel_offsets(sizes, dilation, centred=True)
    expected = {
        (sample, *(a + b for a, b in zip(place, offset, strict=True)))
        for sample, *place in source.coordinates.tolist()
        for offset in offsets
    }
    reached = manager.expanded(key, **options)
    assert list(map(tuple, manager.points(reached).coordinates.tolist())) == sorted(expected)
    assert manager.points(reached).stride == (1,) * dimension
    assert manager.expanded(key, **options) == reached


def test_a_kernel_map_is_built_once():
    manager = CoordinateManager(dimension=2, batch_size=1)
    key = manager.insert(torch.tensor([[0, 1, 1], [0, 1, 2]], dtype=torch.int32), stride=(1, 1))
    first = manager.kernel_map(key, key, kernel_size=(3, 3), dilation=(1, 1))
    assert manager.kernel_map(key, key, kernel_size=(3, 3), dilation=(1, 1)) is first
    assert manager.kernel_map(key, key, kernel_size=(3, 1), dilation=(1, 1)) is not first
