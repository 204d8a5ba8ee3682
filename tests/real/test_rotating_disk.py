"""RF of a real rotating disk, beamformed, against the reference images of PyMUST.

The reference is PyMUST's example of the disk (``pymust.bmode``): demodulation within the probe's
band, a grid of 2.5 cm by 2.5 cm in steps of 0.1 mm from 1 cm of depth, delay-and-sum with the
nearest sample and the f-number of the elements, 30 dB.
"""

import numpy as np
import pytest
import scipy.io

from vasculome.readers.rf import open_rf
from vasculome.ultrasound.beamform import delay_and_sum, directivity_f_number
from vasculome.ultrasound.demodulate import demodulate
from vasculome.ultrasound.transmit import PlaneWaves

SEQUENCE = """
axes: set
n_elements: 128
pitch_um: 298
element_width_um: 262
sampling_frequency_hz: 6.666666666666667e6
center_frequency_hz: 5e6
bandwidth_hz: 0.75e6
speed_of_sound_m_s: 1480
start_time_s: 9.95e-6
angles_deg: [0]
"""
Z_UM, X_UM = 1e4 + 100.0 * np.arange(251), 100.0 * np.arange(-125, 126)
DISK_CENTER_UM, DISK_RADIUS_UM = (22.5e3, -1e3), 10e3
RANGE_DB = 30.0


@pytest.fixture(scope="module")
def images(data, tmp_path_factory):
    """Return our images of 8 bits and the reference, (t, z, x)."""
    sequence_file = tmp_path_factory.mktemp("disk") / "sequence.yaml"
    sequence_file.write_text(SEQUENCE)
    raw = open_rf(data / "ultrasound/PWI_disk.mat", sequence_file=sequence_file, variable="RF")
    assert raw.shape == (32, 1, 128, 334)
    of = raw.sequence
    assert of.wave == "plane"
    clock = {
        "start_time_s": of.start_time_s,
        "sampling_frequency_hz": of.sampling_frequency_hz,
        "center_frequency_hz": of.center_frequency_hz,
    }
    highest_hz = of.center_frequency_hz + of.bandwidth_hz / 2
    image = delay_and_sum(
        demodulate(raw.read(0, 32), bandwidth_hz=of.bandwidth_hz, **clock),
        grid_um=(Z_UM, X_UM),
        elements_um=of.elements_um,
        waves=PlaneWaves(of.wave_values),
        speed_of_sound_m_s=of.speed_of_sound_m_s,
        f_number=directivity_f_number(
            element_width_um=of.element_width_um,
            wavelength_um=of.speed_of_sound_m_s / highest_hz * 1e6,
        ),
        **clock,
    )
    envelope = np.abs(image)
    decibel = 20 * np.log10(envelope / envelope.max())
    ours = np.round(255 * np.clip(decibel / RANGE_DB + 1, 0, 1))
    reference = scipy.io.loadmat(data / "ultrasound/bmode_PWI_disk.mat")["I"]
    return ours, reference.transpose(2, 0, 1).astype(float)


def test_every_frame_of_the_disk_agrees_with_the_reference(images):
    ours, reference = images
    z, x = np.meshgrid(Z_UM, X_UM, indexing="ij")
    disk = np.hypot(z - DISK_CENTER_UM[0], x - DISK_CENTER_UM[1]) <= DISK_RADIUS_UM
    # The disk is where it was said to be: bright within, dark around.
    around = np.hypot(z - DISK_CENTER_UM[0], x - DISK_CENTER_UM[1]) > DISK_RADIUS_UM + 1500
    assert reference[:, disk].mean() > 8 * reference[:, around].mean()
    correlations = [
        np.corrcoef(a[disk], b[disk])[0, 1] for a, b in zip(ours, reference, strict=True)
    ]
    print(f"correlation over the disk: {min(correlations):.4f} to {max(correlations):.4f}")
    assert min(correlations) >= 0.98
    # Frames are told apart: the disk has turned by 16 frames, and its speckle with it.
    assert np.corrcoef(ours[0][disk], reference[16][disk])[0, 1] < 0.7


def test_whole_images_agree_with_the_reference(images):
    ours, reference = images
    assert np.corrcoef(ours.ravel(), reference.ravel())[0, 1] >= 0.99
