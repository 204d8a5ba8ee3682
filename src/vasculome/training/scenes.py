"""What simulated movies show: the paper's two scenes, and broader ones for users' data."""

from __future__ import annotations

from dataclasses import dataclass, replace

Range = tuple[float, float]


@dataclass(frozen=True)
class UlmScene:
    """What movies show; of each range (low, high) every movie draws a value of its own.

    Attributes
    ----------
    shape_px
        Pixels (z, [y,] x).
    n_frames
        Frames of a movie.
    wavelength_um
        Of the pulse.
    frame_rate_hz
        Frames a second.
    spacing
        Pixel size in wavelengths, drawn along each axis.
    bubbles
        Mean number in the field of view.
    tissue_um
        Piece of cortex that is enlarged to fill the longest edge of the field of view.
    slice_um
        Thickness of the slice of it that a 2-D movie shows.
    root_speed_mm_s
        Mean speed, about, at the roots of the arteries; in capillaries it is a hundredth to a third
        of that.
    noise_db
        Noise over the peak of the echo of a bubble of amplitude 1.
    grainy
        Part of the movies whose noise has the grain and the carrier of echoes, as a beamformer
        leaves it; in the others it is white.
    clutter_db
        What the clutter filter left of the tissue, over the same.
    cluttered
        Part of the movies in which it left something.
    from_probe
        Part of the movies whose bubbles look as simulated for the probes of the paper (`probes`),
        with the lobes that these have; in the others they look as a formula has it.
    depth
        Below the array, in wavelengths: echoes are wider the deeper they are. Those of a probe are
        one of the depths that are simulated.
    width
        By formula: factor on the widths of echoes that a linear array makes, drawn along z and
        across.
    side_lobe
        By formula: height of side lobes over the peak.
    psf_error
        Largest relative error of the widths of the echo that movies are correlated with.
    log_spread
        Of the bubbles' radii.
    one_test_network
        Whether all movies for validation, and all for tests, show the same vessels: what an
        angiogram is made of.
    """

    shape_px: tuple[int, ...]
    n_frames: int
    wavelength_um: float
    frame_rate_hz: Range
    spacing: Range
    bubbles: Range
    tissue_um: Range = (394.0, 394.0)
    slice_um: Range = (150.0, 150.0)
    root_speed_mm_s: Range = (10.0, 30.0)
    noise_db: Range = (-25.0, -25.0)
    grainy: float = 0.0
    clutter_db: Range = (-30.0, -30.0)
    cluttered: float = 0.0
    from_probe: float = 0.0
    depth: Range = (64.0, 64.0)
    width: Range = (1.0, 1.0)
    side_lobe: Range = (0.0, 0.0)
    psf_error: float = 0.0
    log_spread: float = 0.35
    one_test_network: bool = True

    @property
    def n_dims(self) -> int:
        """Spatial axes."""
        return len(self.shape_px)


def paper_2d(bubbles: float = 5.0) -> UlmScene:
    """Return the 2-D scene of the paper: 32² pixels of λ/4, 512 frames, 15.625 MHz, 1 kHz.

    Its cortex is twice as large as in life.
    """
    return UlmScene(
        shape_px=(32, 32),
        n_frames=512,
        wavelength_um=98.56,
        frame_rate_hz=(1000.0, 1000.0),
        spacing=(0.25, 0.25),
        bubbles=(bubbles, bubbles),
        slice_um=(60.0, 60.0),
        from_probe=1.0,
        depth=(20.0, 20.0),
    )


def paper_3d(bubbles: float = 30.0, *, n_frames: int = 512) -> UlmScene:
    """Return the 3-D scene of the paper: 32³ pixels of λ/2, 512 frames, 7.8125 MHz, 750 Hz.

    Its cortex is eight times as large as in life.
    """
    return UlmScene(
        shape_px=(32, 32, 32),
        n_frames=n_frames,
        wavelength_um=197.12,
        frame_rate_hz=(750.0, 750.0),
        spacing=(0.5, 0.5),
        bubbles=(bubbles, bubbles),
        from_probe=1.0,
    )


def broad_2d() -> UlmScene:
    """Return what 2-D acquisitions differ in."""
    return UlmScene(
        shape_px=(32, 32),
        n_frames=64,
        wavelength_um=98.56,
        frame_rate_hz=(300.0, 1500.0),
        spacing=(0.25, 0.6),
        bubbles=(1.0, 25.0),
        tissue_um=(200.0, 420.0),
        slice_um=(80.0, 200.0),
        root_speed_mm_s=(5.0, 40.0),
        noise_db=(-35.0, -8.0),
        grainy=0.15,
        clutter_db=(-30.0, -8.0),
        cluttered=0.5,
        from_probe=0.5,
        depth=(20.0, 90.0),
        width=(0.8, 1.4),
        side_lobe=(0.0, 0.2),
        psf_error=0.15,
        one_test_network=False,
    )


def broad_3d() -> UlmScene:
    """Return what 3-D acquisitions differ in."""
    return replace(
        broad_2d(),
        shape_px=(24, 24, 24),
        n_frames=32,
        wavelength_um=197.12,
        frame_rate_hz=(200.0, 1000.0),
        spacing=(0.4, 0.8),
        bubbles=(2.0, 60.0),
        # They take ten times as long to simulate.
        from_probe=0.25,
    )
