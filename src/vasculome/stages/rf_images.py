"""RF that is read as images: mixed down and beamformed, a few frames at a time.

torch takes seconds to import and much memory: only what computes images does it, so that samples
of IQ do not.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.device import pick_device
from vasculome.config import BeamformConfig, Sample
from vasculome.errors import UserError
from vasculome.readers.iq_metadata import Quantity
from vasculome.readers.rf import RawRF, open_rf
from vasculome.stages.digest import digest_of
from vasculome.stages.rf_checks import check_band, check_decimation, check_focus
from vasculome.storage.foreign import open_foreign
from vasculome.ultrasound.transmit import DivergingWaves, FiredElements, PlaneWaves, Waves

_UM_PER_M = 1e6
_BATCH_BYTES = 256e6
_FRAMES_AT_ONCE = 16
"""As `delay_and_sum` sums in one go."""

_SCRATCH_BYTES = 1 << 25
_RAW_BYTES, _IQ_BYTES = 8, 8
"""Of a sample at the most as read, and of one that is mixed down."""

_IQ_COPIES = 2


@dataclass(frozen=True)
class RfImages:
    """Channel data seen as images; like `RawIQ` it holds no open file.

    Attributes
    ----------
    raw
        The channel data.
    chosen
        How images are made.
    spacing_um
        Steps of the grid, (z, x) or (z, y, x).
    """

    raw: RawRF
    chosen: BeamformConfig
    spacing_um: tuple[float, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Files in the order of time."""
        return self.raw.files

    @property
    def metadata(self) -> dict[str, Quantity]:
        """What the sequence tells, by the names of `iq_metadata.METADATA_NAMES`."""
        return self.raw.metadata

    @property
    def shape(self) -> tuple[int, ...]:
        """(t, z, x) or (t, z, y, x)."""
        return (self.raw.shape[0], *(len(axis) for axis in self.grid_um))

    @property
    def start_um(self) -> tuple[float, ...]:
        """Where the first voxel lies from the origin of the probe."""
        return tuple(float(axis[0]) for axis in self.grid_um)

    @property
    def resident_bytes(self) -> int:
        """Memory that reads take beyond their result."""
        frames = min(self._batch, self.shape[0])
        frame, image = math.prod(self.raw.shape[1:]), math.prod(self.shape[1:])
        batch = frames * (frame * (_RAW_BYTES + _IQ_COPIES * _IQ_BYTES) + 2 * image * 8)
        # One frame at a time is mixed down, in steps whose results are longer than its samples.
        return self.raw.resident_bytes + batch + 6 * frame * _IQ_BYTES + 2 * _SCRATCH_BYTES

    @cached_property
    def waves(self) -> Waves:
        """What was transmitted."""
        of = self.raw.sequence
        if of.wave == "plane":
            return PlaneWaves(of.wave_values)
        if of.wave == "diverging":
            return DivergingWaves(of.wave_values)
        return FiredElements(of.elements_um, of.wave_values)

    @cached_property
    def f_number(self) -> float:
        """As chosen, or from the width of the elements.

        Raises
        ------
        UserError
            The width is needed and not known.
        """
        of = self.raw.sequence
        if self.chosen.f_number != "auto":
            return self.chosen.f_number
        if of.element_width_um is None:
            raise UserError(
                "does not tell element_width_um, which f_number: auto needs",
                where=self._told_by,
                fix="add it, or give ultrasound.beamform.f_number in the config",
            )
        from vasculome.ultrasound.beamform import directivity_f_number  # noqa: PLC0415

        highest_hz = of.center_frequency_hz + self._bandwidth_hz / 2
        return directivity_f_number(
            element_width_um=of.element_width_um,
            wavelength_um=of.speed_of_sound_m_s / highest_hz * _UM_PER_M,
        )

    @cached_property
    def grid_um(self) -> tuple[NDArray[np.float64], ...]:
        """Coordinates along each axis from the origin of the probe.

        Raises
        ------
        UserError
            The grid has no depth that was recorded.
        """
        depths = self._depths_um()
        sideways = [self.chosen.lateral_um]
        if len(self.spacing_um) == 3:
            sideways.insert(0, self.chosen.elevation_um)
        return (
            depths,
            *(
                _between(ends, step) if ends else _under(elements, step)
                for ends, step, elements in zip(
                    sideways, self.spacing_um[1:], self.raw.sequence.elements_um.T[1:], strict=True
                )
            ),
        )

    def read(self, t0: int, t1: int) -> NDArray[np.complex64]:
        """Return frames ``t0`` to ``t1`` - 1 as images; raises as `RawRF.read`."""
        out = np.empty((t1 - t0, *self.shape[1:]), np.complex64)
        for begin in range(t0, t1, self._batch):
            end = min(t1, begin + self._batch)
            out[begin - t0 : end - t0] = self._images(begin, end)
        if not np.isfinite(out).all():
            raise UserError(
                f"images of frames {t0} to {t1 - 1} are not finite",
                where=self.files[0],
                fix="scale the RF down, so that its sums can be told in single precision",
            )
        return out

    def fingerprint(self) -> str:
        """Return the identity of the input, and of how images are made of it."""
        return digest_of(
            [self.raw.fingerprint(), self.chosen.model_dump(mode="json"), self.spacing_um]
        )

    def check(self) -> None:
        """Raise UserError where settings and channel data do not fit each other."""
        of, name = self.raw.sequence, self.files[0].name
        if not of.is_baseband:
            check_band(of, self._bandwidth_hz, told_by=self._told_by)
            check_decimation(of, self._bandwidth_hz, self.chosen, name=name)
        pick_device(self.chosen.device)
        _ = self.f_number
        if isinstance(self.waves, FiredElements):
            check_focus(of, self.waves, float(self.grid_um[0][-1]), told_by=self._told_by)

    @property
    def _told_by(self) -> Path:
        """The file that tells the sequence."""
        return self.raw.sequence_file or self.files[0]

    @property
    def _bandwidth_hz(self) -> float:
        bandwidth_hz = self.raw.sequence.bandwidth_hz
        if bandwidth_hz is None:
            raise UserError(
                "does not tell the bandwidth of the pulse, which f_number: auto needs",
                where=self._told_by,
                fix="write the pulse, or give ultrasound.beamform.f_number in the config",
            )
        return bandwidth_hz

    @property
    def _batch(self) -> int:
        """Frames that are beamformed together."""
        frame = math.prod(self.raw.shape[1:]) * (_RAW_BYTES + _IQ_COPIES * _IQ_BYTES)
        fitting = max(1, int(_BATCH_BYTES // frame))
        return fitting - fitting % _FRAMES_AT_ONCE or fitting

    def _images(self, t0: int, t1: int) -> NDArray[np.complexfloating]:
        from vasculome.ultrasound.beamform import delay_and_sum  # noqa: PLC0415
        from vasculome.ultrasound.demodulate import demodulate  # noqa: PLC0415

        of, device = self.raw.sequence, self.chosen.device
        frames, decimation = self.raw.read(t0, t1), 1
        if not of.is_baseband:
            decimation = self.chosen.decimation
            frames = demodulate(
                frames,
                sampling_frequency_hz=of.sampling_frequency_hz,
                center_frequency_hz=of.center_frequency_hz,
                bandwidth_hz=self._bandwidth_hz,
                start_time_s=of.start_time_s,
                decimation=decimation,
                device=device,
            )
        return delay_and_sum(
            frames,
            grid_um=self.grid_um,
            elements_um=of.elements_um,
            waves=self.waves,
            start_time_s=of.start_time_s,
            sampling_frequency_hz=of.sampling_frequency_hz / decimation,
            center_frequency_hz=of.center_frequency_hz,
            speed_of_sound_m_s=of.speed_of_sound_m_s,
            f_number=self.f_number,
            window=self.chosen.window,
            interpolation=self.chosen.interpolation,
            device=device,
            scratch_bytes=_SCRATCH_BYTES,
        )

    def _depths_um(self) -> NDArray[np.float64]:
        """Return the depths of the grid; all of them were recorded, straight in front."""
        first, last = self._recorded_um()
        begin, end = self.chosen.depth_um or (first, last)
        if begin < first - 1e-6 or end > last + 1e-6 or last - first < self.spacing_um[0]:
            raise UserError(
                f"depths from {begin:g} to {end:g} µm were not all recorded, which are from "
                f"{first:.0f} to {last:.0f} µm",
                where=f"config: ultrasound.beamform.depth_um, for {self.files[0].name}",
                fix="choose depths between these, or correct start_time_s in the sequence file",
            )
        return _between((begin, end), self.spacing_um[0])

    def _recorded_um(self) -> tuple[float, float]:
        """Return the first and last depth whose echoes, straight back, all transmits recorded."""
        of = self.raw.sequence
        um_per_s = of.speed_of_sound_m_s * _UM_PER_M
        ends_s = of.start_time_s + (self.raw.samples - 1) / of.sampling_frequency_hz
        step_um = self.spacing_um[0] / 10
        point = np.concatenate([[0.0], of.elements_um[:, 1:].mean(axis=0)])[None]

        def echo_s(step: int) -> NDArray[np.float64]:
            point[0, 0] = step * step_um
            there_s = self.waves.arrival_s(point, speed_of_sound_m_s=of.speed_of_sound_m_s)
            echo: NDArray[np.float64] = there_s[:, 0] + point[0, 0] / um_per_s
            return echo

        # Echoes come the later the deeper they are.
        steps = range(math.ceil(um_per_s * max(ends_s.max(), 0.0) / step_um))
        first = bisect_left(steps, True, key=lambda n: bool((echo_s(n) >= of.start_time_s).all()))
        stop = bisect_left(steps, True, key=lambda n: bool((echo_s(n) > ends_s).any()))
        return (first * step_um, (stop - 1) * step_um) if first < stop else (0.0, 0.0)


def open_rf_images(sample: Sample, chosen: BeamformConfig) -> RfImages:
    """Open the sample's channel data after checking all headers.

    Raises
    ------
    UserError
        What is wrong with the files, the sequence or the settings.
    """
    raw = open_rf(
        Path(sample.path),
        sequence_file=None if sample.sequence is None else Path(sample.sequence),
        variable=sample.variable,
        open_zarr=open_foreign,
    )
    if raw.sequence.ndim != len(sample.spacing_um):
        raise UserError(
            f"the probe makes images with {raw.sequence.ndim} axes, but spacing_um has "
            f"{len(sample.spacing_um)}",
            where=f"sample {sample.sample}",
            fix="give z,x for a linear array and z,y,x for a matrix array",
        )
    return RfImages(raw, chosen, sample.spacing_um)


def _between(ends_um: tuple[float, float], step_um: float) -> NDArray[np.float64]:
    count = math.floor((ends_um[1] - ends_um[0]) / step_um + 1e-6) + 1
    return ends_um[0] + step_um * np.arange(count)


def _under(elements_um: NDArray[np.floating], step_um: float) -> NDArray[np.float64]:
    """Return a line as long as the probe, around its middle."""
    low, high = float(elements_um.min()), float(elements_um.max())
    count = math.floor((high - low) / step_um + 1e-6) + 1
    return (low + high) / 2 + step_um * (np.arange(count) - (count - 1) / 2)
