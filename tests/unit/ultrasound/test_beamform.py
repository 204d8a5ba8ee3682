"""Beamformed points against where they are, a plain sum over pairs, and PyMUST."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from vasculome.ultrasound.beamform import delay_and_sum, directivity_f_number
from vasculome.ultrasound.demodulate import demodulate
from vasculome.ultrasound.transmit import DivergingWaves, FiredElements, PlaneWaves

SPEED_M_S = 1540.0
CENTER_HZ = 5e6
SAMPLING_HZ = 20e6
BANDWIDTH_HZ = 3.5e6
WAVELENGTH_UM = SPEED_M_S / CENTER_HZ * 1e6

LINEAR = np.stack([np.zeros(32), (np.arange(32) - 15.5) * 200.0], axis=1)
LINE = (np.arange(10) - 4.5) * 300.0
MATRIX = np.stack([a.ravel() for a in np.meshgrid([0.0], LINE, LINE, indexing="ij")], axis=1)

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


def _planes(angles_deg, n_dims):
    angles = np.deg2rad(angles_deg)
    tilted = [np.cos(angles), np.sin(angles)]
    if n_dims == 3:
        tilted.insert(1, np.zeros(len(angles)))
    return PlaneWaves(np.stack(tilted, axis=1))


def _echoes(points_um, elements_um, waves, *, start_time_s, n_samples=400):
    """Return RF of points that echo a Gaussian pulse at its exact time, (1, a, e, samples)."""
    points_um = np.atleast_2d(points_um)
    there_s = waves.arrival_s(points_um, speed_of_sound_m_s=SPEED_M_S)
    back_s = np.linalg.norm(points_um[:, None] - elements_um, axis=2) / (SPEED_M_S * 1e6)
    t = np.arange(n_samples) / SAMPLING_HZ
    rf = np.zeros((1, len(waves), len(elements_um), n_samples))
    for point in range(len(points_um)):
        delay = there_s[:, point, None] + back_s[point]
        late = t + np.asarray(start_time_s)[:, None, None] - delay[..., None]
        envelope = np.exp(-((late * BANDWIDTH_HZ) ** 2) * 2)
        rf[0] += envelope * np.cos(2 * np.pi * CENTER_HZ * late)
    return rf


def _iq(rf, start_time_s):
    return demodulate(
        rf,
        sampling_frequency_hz=SAMPLING_HZ,
        center_frequency_hz=CENTER_HZ,
        bandwidth_hz=6e6,
        start_time_s=np.asarray(start_time_s),
    )


def _beamform(iq, grid_um, elements_um, waves, start_time_s, **options):
    known = {"f_number": 1.0} | options
    return delay_and_sum(
        iq,
        grid_um=grid_um,
        elements_um=elements_um,
        waves=waves,
        start_time_s=np.asarray(start_time_s),
        sampling_frequency_hz=SAMPLING_HZ,
        center_frequency_hz=CENTER_HZ,
        speed_of_sound_m_s=SPEED_M_S,
        **known,
    )


def _around(point_um, *, half_um=120.0, step_um=20.0):
    steps = np.arange(-half_um, half_um + step_um / 2, step_um)
    return tuple(centre + steps for centre in point_um)


def _peak(image, grid_um):
    """Return the maximum of an envelope, by a parabola through the neighbours on each axis."""
    top = np.unravel_index(np.argmax(image), image.shape)
    place = []
    for axis, (i, line) in enumerate(zip(top, grid_um, strict=True)):
        assert 0 < i < len(line) - 1, "the maximum lies on the rim of the grid"
        a, b, c = (image[(*top[:axis], i + k, *top[axis + 1 :])] for k in (-1, 0, 1))
        place.append(line[i] + (line[1] - line[0]) * 0.5 * (a - c) / (a - 2 * b + c))
    return np.array(place)


def _noise(shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize(
    ("elements", "point", "waves"),
    [
        (LINEAR, (9000.0, 731.0), _planes([0.0], 2)),
        (LINEAR, (9000.0, -731.0), _planes([-8.0, 0.0, 8.0], 2)),
        (LINEAR, (9000.0, 400.0), DivergingWaves(np.array([[-4000.0, -900.0], [-4000.0, 900.0]]))),
        (LINEAR, (9000.0, 400.0), FiredElements(LINEAR, np.abs(LINEAR[None, :, 1]) * 1e-10)),
        (MATRIX, (6000.0, 250.0, -310.0), _planes([-6.0, 6.0], 3)),
        (MATRIX, (6000.0, -250.0, 310.0), DivergingWaves(np.array([[-5000.0, 300.0, 0.0]]))),
    ],
)
def test_a_point_is_focused_where_it_is(elements, point, waves, interpolation):
    start_s = 4e-6 + 1e-7 * np.arange(len(waves))
    rf = _echoes(point, elements, waves, start_time_s=start_s)
    grid = _around(point)
    image = _beamform(
        _iq(rf, start_s),
        grid,
        elements,
        waves,
        start_s,
        # All elements: where they come and go from point to point, so does the amplitude.
        f_number=0.0,
        interpolation=interpolation,
    )
    assert image.shape == (1, *(len(axis) for axis in grid))
    assert np.abs(_peak(np.abs(image[0]), grid) - point).max() < WAVELENGTH_UM / 20
    # The echoes add in phase, and the phase is that of the pulse where the point is: zero.
    at_point = _beamform(
        _iq(rf, start_s), tuple(np.array([c]) for c in point), elements, waves, start_s
    )
    assert abs(np.angle(at_point.item())) < 0.05


def _plain_sum(iq, grid_um, elements_um, waves, start_s, *, f_number, window, interpolation):
    """Return the image by the formula, point by point, in double precision."""
    mesh = np.meshgrid(*grid_um, indexing="ij")
    points = np.stack([m.ravel() for m in mesh], axis=1)
    there = waves.arrival_s(points, speed_of_sound_m_s=SPEED_M_S)
    image = np.zeros((len(iq), len(points)), complex)
    recorded = np.arange(-4, iq.shape[-1] + 4)
    padded = np.pad(iq.astype(complex), [(0, 0)] * 3 + [(4, 4)])
    for n, point in enumerate(points):
        for e, element in enumerate(elements_um):
            sideways = np.linalg.norm(point[1:] - element[1:])
            half = point[0] / (2 * f_number) if f_number else np.inf
            if sideways > half:
                continue
            weight = np.cos(np.pi / 2 * sideways / half) ** 2 if window == "hann" else 1.0
            back = np.linalg.norm(point - element) / (SPEED_M_S * 1e6)
            for a in range(len(waves)):
                tau = there[a, n] + back
                far = np.abs(recorded - (tau - start_s[a]) * SAMPLING_HZ)
                if interpolation == "linear":
                    kernel = np.maximum(0, 1 - far)
                else:  # Keys 1981
                    near = 1.5 * far**3 - 2.5 * far**2 + 1
                    beyond = -0.5 * far**3 + 2.5 * far**2 - 4 * far + 2
                    kernel = np.where(far < 1, near, np.where(far < 2, beyond, 0))
                turn = np.exp(2j * np.pi * CENTER_HZ * tau)
                image[:, n] += weight * turn * (padded[:, a, e] @ kernel)
    return image.reshape(len(iq), *mesh[0].shape)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("f_number", "window", "interpolation"),
    [
        (0.0, "rectangular", "linear"),
        (1.3, "rectangular", "cubic"),
        (0.9, "hann", "linear"),
        (0.9, "hann", "cubic"),
    ],
)
@pytest.mark.parametrize("n_dims", [2, 3])
def test_image_is_the_sum_of_the_formula(n_dims, f_number, window, interpolation, device):
    elements = LINEAR if n_dims == 2 else MATRIX[::3]
    waves = _planes([-7.0, 3.0], n_dims)
    start_s = np.array([3e-6, 3.4e-6])
    iq = _noise((3, 2, len(elements), 60))
    # Records end within the grid: what is before and after counts as silence.
    grid = (np.linspace(1800, 5000, 9), *[np.linspace(-700, 900, 4)] * (n_dims - 1))
    options = {"f_number": f_number, "window": window, "interpolation": interpolation}
    image = _beamform(iq, grid, elements, waves, start_s, device=device, **options)
    expected = _plain_sum(iq, grid, elements, waves, start_s, **options)
    assert image.dtype == np.complex64
    assert np.abs(image - expected).max() < 2e-4 * np.abs(expected).max()
    double = _beamform(iq.astype(complex), grid, elements, waves, start_s, device=device, **options)
    assert double.dtype == np.complex128
    assert np.abs(double - expected).max() < 1e-9 * np.abs(expected).max()


@pytest.mark.parametrize("device", DEVICES)
def test_bytes_do_not_depend_on_blocks(device):
    waves = _planes([-5.0, 0.0, 5.0], 2)
    start_s = np.zeros(3)
    iq = _noise((37, 3, 32, 200))
    grid = (np.linspace(1000, 7000, 41), np.linspace(-2500, 2500, 33))
    whole = _beamform(iq, grid, LINEAR, waves, start_s, device=device)
    small = _beamform(iq, grid, LINEAR, waves, start_s, device=device, scratch_bytes=100_000)
    np.testing.assert_array_equal(small, whole)
    for t0, t1 in ((0, 1), (3, 8), (16, 37)):
        part = _beamform(iq[t0:t1], grid, LINEAR, waves, start_s, device=device)
        np.testing.assert_array_equal(part, whole[t0:t1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded():
    # 20 000 points of 256 elements would take 600 MB in one go. A process of its own, since others
    # have left memory that is free to be used.
    program = """
import re
from pathlib import Path
import numpy as np
from vasculome.ultrasound.beamform import delay_and_sum
from vasculome.ultrasound.transmit import PlaneWaves

def run(n_points):
    elements = np.stack([np.zeros(256), (np.arange(256) - 127.5) * 100.0], axis=1)
    delay_and_sum(
        np.ones((2, 1, 256, 64), np.complex64),
        grid_um=(np.linspace(9000, 9500, n_points // 100), np.linspace(-9000, 9000, 100)),
        elements_um=elements, waves=PlaneWaves(np.array([[1.0, 0.0]])),
        start_time_s=np.zeros(1), sampling_frequency_hz=4e6, center_frequency_hz=5e6,
        speed_of_sound_m_s=1540.0, f_number=0.0, interpolation="cubic", scratch_bytes=50_000_000)

def status(what):
    return 1024 * int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

run(100)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = status("VmRSS")
run(20_000)
print(status("VmHWM") - before)
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert 5e6 < float(answer.stdout) < 55e6


def test_agrees_with_pymust():
    pymust = pytest.importorskip("pymust")
    param = pymust.utils.Param()
    param.fs, param.fc, param.c, param.pitch = SAMPLING_HZ, CENTER_HZ, SPEED_M_S, 200e-6
    # No point lies on the rim of an aperture, where rounding decides.
    param.Nelements, param.fnumber, param.t0 = 32, 1.2345, np.array([2e-6])
    iq = _noise((2, 1, 32, 300))
    z_um, x_um = np.linspace(2500, 10000, 31), np.linspace(-2900, 2900, 29)
    mesh_x, mesh_z = np.meshgrid(x_um * 1e-6, z_um * 1e-6)
    matrix = pymust.dasmtx(1j * np.array([300, 32]), mesh_x, mesh_z, np.zeros((1, 32)), param)
    theirs = [(matrix @ frame[0].ravel()).reshape(mesh_x.shape, order="F") for frame in iq]
    # PyMUST takes the first wavelet of four sources an element.
    line = np.linspace(LINEAR[0, 1], LINEAR[-1, 1], 128)
    sources = FiredElements(np.stack([np.zeros(128), line], axis=1), np.zeros((1, 128)))
    ours = _beamform(iq, (z_um, x_um), LINEAR, sources, [2e-6], f_number=param.fnumber)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_points_simulated_by_pymust_are_focused_where_they_are():
    pymust = pytest.importorskip("pymust")
    param = pymust.utils.Param()
    param.fc, param.fs, param.c = CENTER_HZ, SAMPLING_HZ, SPEED_M_S
    param.pitch, param.kerf, param.Nelements, param.bandwidth = 200e-6, 20e-6, 32, 70.0
    points = np.array([[7000.0, -900.0], [10000.0, 700.0]])
    angles = np.deg2rad([-6.0, 6.0])
    rf, lead_s = [], []
    for angle in angles:
        delays = pymust.txdelay(param, float(angle))
        lead_s.append(float(np.nanmin(delays - LINEAR[:, 1] * np.sin(angle) / SPEED_M_S * 1e-6)))
        x_m, z_m = points[:, 1] * 1e-6, points[:, 0] * 1e-6
        rf.append(pymust.simus(x_m, z_m, np.ones(2), delays, param)[0])
    n_samples = min(len(r) for r in rf)
    echoes = np.stack([r[:n_samples].T for r in rf])[None]
    # PyMUST's clock starts with its first element, ours when the wave passes the origin.
    start_s = -np.array(lead_s)
    waves = _planes(np.rad2deg(angles), 2)
    iq = _iq(echoes, start_s)
    for point in points:
        grid = _around(point)
        image = _beamform(iq, grid, LINEAR, waves, start_s, f_number=1.0)
        assert np.abs(_peak(np.abs(image[0]), grid) - point).max() < WAVELENGTH_UM / 20


def test_f_number_of_elements():
    # At its angle an element hears 3 dB less.
    for width in (0.3, 0.885, 1.5):
        f_number = directivity_f_number(element_width_um=width * 100, wavelength_um=100.0)
        angle = np.arctan(1 / (2 * f_number))
        assert np.cos(angle) * np.sinc(width * np.sin(angle)) == pytest.approx(0.71, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elements": MATRIX}, "do not fit a grid"),
        ({"elements": LINEAR[:-1]}, "is not of"),
        ({"start": [0.0, 0.0]}, "start times"),
        ({"f_number": -1.0}, "f-number"),
        ({"f_number": 0.0, "window": "hann"}, "f-number"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    elements = change.pop("elements", LINEAR)
    start = change.pop("start", [0.0])
    grid = (np.array([5000.0]), np.array([0.0]))
    with pytest.raises(ValueError, match=message):
        _beamform(_noise((1, 1, 32, 50)), grid, elements, _planes([0.0], 2), start, **change)


@pytest.mark.parametrize("window", ["rectangular", "hann"])
def test_points_on_elements_are_numbers(window):
    iq = np.ones((1, 1, 33, 50), np.complex64)
    elements = np.stack([np.zeros(33), (np.arange(33) - 16) * 200.0], axis=1)
    image = delay_and_sum(
        iq,
        grid_um=(np.array([0.0, 200.0]), elements[:, 1]),
        elements_um=elements,
        waves=_planes([0.0], 2),
        start_time_s=np.zeros(1),
        sampling_frequency_hz=SAMPLING_HZ,
        center_frequency_hz=CENTER_HZ,
        speed_of_sound_m_s=SPEED_M_S,
        f_number=1.0,
        window=window,
    )
    assert np.isfinite(image).all()
    # At depth 0 an element hears itself alone.
    np.testing.assert_allclose(np.abs(image[0, 0]), 1, rtol=1e-5)
