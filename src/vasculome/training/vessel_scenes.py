"""What rendered patches of vessels show: light sheets, two photons, and all that may come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vasculome.training.scenes import Range
from vasculome.training.vessel_beds import BedKind

LabelKind = Literal["painted", "brushed", "seen", "lumen"]


@dataclass(frozen=True)
class VesselScene:
    """What patches show; of each range (low, high) every patch draws a value of its own.

    Ranges marked (log) are drawn evenly in their logarithm. Light is told as a part of a
    capillary's, as the blurred image shows it.

    Attributes
    ----------
    shape
        Voxels (z, y, x).
    beds
        The vessels.
    magnify
        How much larger they are than they grew (log).
    large_vessels
        Part of the patches that an artery or a vein goes through beside them, or that lie in one;
        those that show vessels of users' labels have none.
    large_um
        Its radius (log).
    spacing_um
        Voxel size along y and x (log).
    anisotropy
        Voxel size along z over that.
    most_spacing_um
        Largest voxel size along z.
    label
        What the mask marks: "painted", as annotators do, all that is bright beside the typical
        vessel, so that bright ones get wide and the dimmest are left out; "brushed", the same on a
        smoothed picture and from a higher level on, so that outlines are smooth and more of the dim
        ones are left out; "seen", half of the height of the blurred vessel, whatever that is;
        "lumen", the vessel itself. These two are wide enough not to break between voxels. A large
        vessel, which outshines all others, is marked as "seen" unless that is "lumen".
    painted_level, brushed_level
        Light above which vessels are painted or brushed, over the median of what is "seen".
    brush_voxels
        Standard deviation along each axis of the Gaussian of "brushed".
    sharpness
        Standard deviation of the point spread function along y and x, in voxels (log).
    axial
        The same along z, over that in µm.
    most_blur_um
        The most that both may be, along z and across: beyond, capillaries run into each other.
    halo, rings
        As of `vasculome.simulate.optics.PointSpread`.
    photons
        A voxel, from a capillary (log).
    least_contrast
        Light of a capillary above the tissue's, over the noise and over the texture of the tissue;
        where it would be less there are more photons and less texture.
    read_noise
        Standard deviation in photons.
    background
        Light of tissue (log).
    texture, grain_um, cell_um, cell_light
        As of `vasculome.simulate.tissue.Tissue`.
    cells_per_mm3
        As there (log).
    cellular
        Part of the patches with cells.
    spread, patchiness, patch_um, gaps, gap_light, hollow, lumen, wall_um
        As of `vasculome.simulate.staining.Staining`.
    with_gaps, with_hollow
        Part of the patches in which some vessels are so.
    attenuation_um
        Depth over which light falls to 1/e (log).
    tilt
        Largest relative change of light across the patch.
    stripes, stripe_rows
        As of `vasculome.simulate.microscope.Microscope`.
    striped
        Part of the patches with stripes.
    surface
        Part of the patches through which the tissue's surface goes.
    bits
        Depths of cameras.
    exposure
        Grey levels of vessels over the camera's scale (log), of capillaries and wide ones the
        geometric mean; above 1 they saturate.
    offset
        Grey levels without light over the scale.
    smoothing
        Standard deviation, in voxels, of a Gaussian that noise and image are smoothed with.
    smoothed
        Part of the patches.
    upper_percent
        Percentile that becomes 1 when the patch is normalized; what lies above it is drawn (log).
    upper
        What becomes 1, over that percentile, both above the darkest voxel (log): elsewhere in a
        volume vessels are brighter.
    lower
        How far below its darkest voxel lies what becomes 0, over the range from there to the upper
        percentile: elsewhere in a volume it is darker.
    from_labels, on_planes
        Part of the patches that show vessels of users' labels, and have users' images as
        background, where there are any.
    """

    shape: tuple[int, int, int] = (64, 64, 64)
    beds: BedKind = field(default_factory=BedKind)
    magnify: Range = (0.9, 1.3)
    large_vessels: float = 0.0
    large_um: Range = (20.0, 100.0)
    spacing_um: Range = (1.0, 3.0)
    anisotropy: Range = (1.0, 3.0)
    most_spacing_um: float = 5.0
    label: LabelKind = "seen"
    painted_level: float = 0.4
    brushed_level: float = 0.75
    brush_voxels: float = 1.5
    sharpness: Range = (0.5, 1.2)
    axial: Range = (1.0, 3.0)
    most_blur_um: tuple[float, float] = (8.0, 4.0)
    halo: Range = (0.0, 0.1)
    rings: Range = (0.0, 0.0)
    photons: Range = (50.0, 1000.0)
    least_contrast: float = 3.0
    read_noise: Range = (0.0, 3.0)
    background: Range = (0.05, 0.4)
    texture: Range = (0.05, 0.4)
    grain_um: Range = (4.0, 20.0)
    cells_per_mm3: Range = (2e3, 1e5)
    cell_um: Range = (2.0, 5.0)
    cell_light: Range = (-0.5, 2.0)
    cellular: float = 0.3
    spread: Range = (0.1, 0.5)
    patchiness: Range = (0.05, 0.4)
    patch_um: Range = (15.0, 60.0)
    gaps: Range = (0.02, 0.15)
    gap_light: Range = (0.2, 0.6)
    with_gaps: float = 0.3
    hollow: Range = (0.2, 1.0)
    lumen: Range = (0.1, 0.7)
    wall_um: Range = (0.8, 2.5)
    with_hollow: float = 0.2
    attenuation_um: Range = (200.0, 3000.0)
    tilt: Range = (0.0, 0.3)
    stripes: Range = (0.02, 0.12)
    stripe_rows: Range = (0.5, 3.0)
    striped: float = 0.4
    surface: float = 0.05
    bits: tuple[int, ...] = (8, 12, 16)
    exposure: Range = (0.1, 1.0)
    offset: Range = (0.0, 0.05)
    smoothing: Range = (0.4, 0.9)
    smoothed: float = 0.3
    upper_percent: Range = (95.0, 99.9)
    upper: Range = (1.0, 1.5)
    lower: Range = (0.0, 0.5)
    from_labels: float = 0.25
    on_planes: float = 0.3


def light_sheet() -> VesselScene:
    """Return cleared organs, vessels filled or with stained walls, in a light-sheet microscope."""
    return VesselScene(rings=(0.0, 0.04))


def two_photon() -> VesselScene:
    """Return living cortex with a dye in the plasma, in a two-photon microscope.

    Few photons, gaps where blood cells pass, scan lines of uneven brightness, light that fades with
    depth, no hollow vessels.
    """
    return VesselScene(
        spacing_um=(1.0, 2.0),
        anisotropy=(1.0, 5.0),
        sharpness=(0.4, 0.9),
        axial=(1.5, 5.0),
        halo=(0.0, 0.2),
        photons=(6.0, 120.0),
        read_noise=(0.0, 1.5),
        background=(0.02, 0.3),
        cells_per_mm3=(1e4, 1e5),
        cell_um=(3.0, 5.0),
        cell_light=(-0.8, 0.5),
        spread=(0.1, 0.4),
        patchiness=(0.1, 0.4),
        patch_um=(6.0, 25.0),
        gaps=(0.05, 0.2),
        with_gaps=0.5,
        with_hollow=0.0,
        attenuation_um=(120.0, 600.0),
        stripes=(0.02, 0.1),
        stripe_rows=(0.2, 0.4),
        striped=0.5,
        surface=0.1,
        bits=(8, 12, 16),
        exposure=(0.15, 1.2),
    )


def broad() -> VesselScene:
    """Return what volumes of either kind, and of others, differ in: for users' data."""
    return VesselScene(
        beds=BedKind(
            cell_um=(42.0, 120.0),
            capillary_um=(1.6, 3.6),
            terminals=(3, 30),
            tortuosity=(0.0, 0.7),
        ),
        magnify=(0.6, 1.5),
        spacing_um=(1.0, 4.0),
        anisotropy=(1.0, 5.0),
        sharpness=(0.4, 1.7),
        axial=(1.0, 4.0),
        halo=(0.0, 0.25),
        rings=(0.0, 0.08),
        photons=(8.0, 5000.0),
        background=(0.01, 0.5),
        texture=(0.02, 0.5),
        spread=(0.1, 0.8),
        patchiness=(0.05, 0.6),
        patch_um=(6.0, 80.0),
        cellular=0.4,
        attenuation_um=(120.0, 3000.0),
        tilt=(0.0, 0.5),
        stripes=(0.02, 0.2),
        stripe_rows=(0.2, 3.0),
        surface=0.08,
        exposure=(0.05, 2.0),
        upper_percent=(95.0, 99.95),
        upper=(1.0, 3.0),
        lower=(0.0, 1.0),
    )
