"""The student without torch: the same answer, whatever the design."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from vasculome.models.student import Student, StudentDesign
from vasculome.models.student_engine import StudentEngine


def trained(design, seed=0):
    """Return a student whose norms and biases are not what they began with."""
    torch.manual_seed(seed)
    network = Student(design)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if ("norm" in name or name == "head.bias") and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
        network.head.weight.mul_(5)
    return network.eval()


def both(network, image):
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)[None, None]).logits[0, 0].numpy()
    return StudentEngine(network)(image), expected


DESIGNS = [
    StudentDesign(widths, stem_stride, skip, norm)
    for widths, stem_stride, skip, norm in itertools.product(
        [(5, 6, 20, 44), (3, 4)], [1, 2], ["add", "concatenate"], ["group", "batch"]
    )
]


@pytest.mark.parametrize(
    "design",
    [
        *DESIGNS,
        StudentDesign((5, 10, 20, 40), stem_stride=1),
        StudentDesign(gamma=0.5),
        StudentDesign(gamma=0.7),
    ],
    ids=str,
)
def test_it_says_what_torch_says(design):
    s = design.stride
    image = np.random.default_rng(0).random((2 * s, 3 * s, 5 * s), np.float32)
    found, expected = both(trained(design), image)
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, atol=min(1e-4, 1e-3 * expected.std()))


def test_nothing_is_left_of_the_window_before():
    network = trained(StudentDesign())
    engine = StudentEngine(network)
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 32, 48, 64), np.float32)
    alone = StudentEngine(network)(second).copy()
    engine(first)
    engine(rng.random((16, 16, 16), np.float32))
    np.testing.assert_array_equal(engine(second), alone)


def test_what_is_no_number_stays_none():
    network = trained(StudentDesign(norm="batch"))
    image = np.zeros((32, 32, 32), np.float32)
    image[3, 4, 5] = np.nan
    assert np.isnan(StudentEngine(network)(image)).any()


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        StudentEngine(trained(StudentDesign()))(np.zeros((16, 16, 24), np.float32))
