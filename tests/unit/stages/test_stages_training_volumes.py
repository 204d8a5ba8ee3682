import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vasculome.config import StudentConfig, TrainingVolume
from vasculome.errors import UserError
from vasculome.geometry import Box
from vasculome.stages.segment_recipes import patches_of
from vasculome.stages.training_volumes import (
    given_patches,
    read_given,
    rendering_sources,
)
from vasculome.stages.volume_files import memory_mb, open_row, volumes_bytes
from vasculome.stages.volume_sheet import (
    Roles,
    folds_of,
    held_out_rows,
    read_sheet,
    roles_of,
    sheet_identity,
)
from vasculome.storage.omezarr import ImageSpec, create_image
from vasculome.training.patch_source import RenderedPatches
from vasculome.training.volume_patches import AdaptedPatches, MixedPatches, VolumePatches

SHAPE = (12, 20, 24)
SPACING = (3.0, 1.5, 1.5)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(100, 4000, SHAPE).astype(np.uint16)


def label() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 5:9, 6:10] = 1
    return mask


def write_nifti(
    path: Path,
    voxels: np.ndarray,
    *,
    spacing_um: tuple[float, ...] | None = None,
    affine: np.ndarray | None = None,
) -> Path:
    header = bytearray(352)
    if spacing_um is not None:
        struct.pack_into("<4f", header, 76, 1.0, *spacing_um[::-1])
        header[123] = 3
    if affine is not None:
        struct.pack_into("<h", header, 254, 1)
        struct.pack_into("<12f", header, 280, *affine.ravel())
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *voxels.shape[::-1], 1, 1, 1, 1)
    code = {"uint8": 2, "int16": 4, "float32": 16}[voxels.dtype.name]
    struct.pack_into("<2h", header, 70, code, 8 * voxels.dtype.itemsize)
    struct.pack_into("<3f", header, 108, 352.0, 0.0, 0.0)
    header[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(header) + voxels.tobytes()))
    return path


def write_zarr(path: Path, voxels: np.ndarray, spacing: tuple[float, ...] = SPACING) -> Path:
    axes = ("c", "z", "y", "x")[-voxels.ndim :]
    spec = ImageSpec(
        shape=voxels.shape,
        dtype=voxels.dtype.name,
        axes=axes,
        spacing_um=((1.0,) * (voxels.ndim - 3)) + spacing,
        chunk=voxels.shape,
        shard=voxels.shape,
        reduce="mean",
        name="image",
    )
    made = create_image(path, spec)
    made.write(Box.of_shape(voxels.shape), voxels)
    made.finish_levels()
    return path


def row(**cells: object) -> TrainingVolume:
    return TrainingVolume.model_validate({"spacing_um": SPACING} | cells)


def test_one_volume_in_every_format_is_the_same(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", image())
    planes = tmp_path / "planes"
    planes.mkdir()
    for z, plane in enumerate(image()):
        tifffile.imwrite(planes / f"plane_{z:03d}.tif", plane)
    write_zarr(tmp_path / "v.ome.zarr", image())
    write_zarr(tmp_path / "c.ome.zarr", image()[None])
    write_nifti(tmp_path / "v.nii.gz", image().astype(np.int16))
    mask = write_nifti(tmp_path / "label.nii.gz", label())
    names = ["stack.tif", "planes", "v.ome.zarr", "c.ome.zarr", "v.nii.gz"]
    volumes = [read_given(row(image=str(tmp_path / n), label=str(mask))) for n in names]
    low, high = image().min(), np.percentile(image(), 95, method="inverted_cdf")
    expected = np.clip((image().astype(float) - low) / (high - low), 0, 1)
    for volume in volumes:
        # Signed integers are counted in bins of a 65536th of their range.
        np.testing.assert_allclose(volume.image, expected, atol=1e-4)
        np.testing.assert_array_equal(volume.mask, label() > 0)
        assert volume.spacing_um == SPACING


def sheet_of(tmp_path: Path, n_labelled: int, *, folds: list[int] | None = None) -> Path:
    geometry = write_nifti(tmp_path / "label.nii.gz", label())
    lines = ["image\tlabel\tspacing_um\tfold\tbackground"]
    for k in range(n_labelled + 1):
        mask = write_nifti(tmp_path / f"label{k}.nii.gz", label())
        tifffile.imwrite(tmp_path / f"v{k}.tif", image(k) // (k + 1))
        with_label = k < n_labelled
        fold = folds[k] if folds and with_label else ""
        lines.append(f"{tmp_path}/v{k}.tif\t{mask if with_label else ''}\t3,1.5,1.5\t{fold}\t")
    lines.append(f"\t{geometry}\t3,3,3\t\t")
    lines.append(f"{tmp_path}/planes.tif\t\t3,3,3\t\tyes")
    tifffile.imwrite(tmp_path / "planes.tif", image(9))
    (tmp_path / "volumes.tsv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "volumes.tsv"


def settings_of(sheet: Path, **changes: object) -> StudentConfig:
    return StudentConfig.model_validate(
        {"network": "student", "volumes": str(sheet), "patch_voxels": 16} | changes
    )


def given(sheet: Path, *, seed: int = 0, **changes: object) -> VolumePatches:
    return given_patches(roles_of(settings_of(sheet, **changes)), shape=(8,) * 3, seed=seed)


def test_each_fold_holds_out_volumes_that_others_learn_from(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, 5)
    held = []
    for fold in range(3):
        source = given(sheet, fold=(fold, 3))
        assert len(source.training) + len(source.validating) == 6
        aside = [volume.image.tobytes() for volume in source.validating]
        assert not {v.image.tobytes() for v in source.training} & set(aside)
        held += aside
        assert source.labelled(0)[0].shape == (8, 8, 8)
    assert len(held) == len(set(held)) == 5


def test_folds_share_volumes_out_evenly() -> None:
    folds = folds_of(11, n_folds=5)
    assert sorted(np.bincount(folds).tolist()) == [2, 2, 2, 2, 3]
    assert folds.tolist() != sorted(folds.tolist())
    with pytest.raises(ValueError, match="5 folds"):
        folds_of(4, n_folds=5)


def test_what_is_held_out_does_not_depend_on_who_asks(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, 5)
    rows = read_sheet(sheet)
    for fold in (None, (1, 3)):
        aside = held_out_rows(rows, fold=fold, where="")
        expected = [read_given(row).image.tobytes() for row in aside]
        for seed in range(4):
            source = given(sheet, seed=seed, fold=fold)
            assert [volume.image.tobytes() for volume in source.validating] == expected


def test_folds_of_the_sheet_are_followed(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, 3, folds=[1, 0, 1])
    source = given(sheet, fold=(0, 2))
    only = read_given(read_sheet(sheet)[1])
    assert [v.image.tobytes() for v in source.validating] == [only.image.tobytes()]
    with pytest.raises(UserError, match="fold 2 of 3"):
        given(sheet, fold=(2, 3))


def test_without_folds_some_volume_is_held_out(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, 2)
    source = given(sheet)
    assert (len(source.training), len(source.validating)) == (2, 1)
    with pytest.raises(UserError, match="too few for 5 folds"):
        given(sheet, fold=(0, 5))
    with pytest.raises(UserError, match="has 1 volumes"):
        given(sheet_of(tmp_path, 1))


def test_images_of_one_label_are_held_out_together(tmp_path: Path) -> None:
    (tmp_path / "other.nii").symlink_to(tmp_path / "b.nii")
    labels = ["a.nii", "b.nii", "a.nii", "c.nii", "other.nii", "a.nii"]
    rows = [row(image=f"{k}.tif", label=str(tmp_path / name)) for k, name in enumerate(labels)]
    held = [{row.image for row in held_out_rows(rows, fold=(k, 3), where="")} for k in range(3)]
    assert sorted(map(sorted, held)) == [["0.tif", "2.tif", "5.tif"], ["1.tif", "4.tif"], ["3.tif"]]
    for fold in (None, (0, 2)):
        aside = held_out_rows(rows, fold=fold, where="")
        learnt = {Path(row.label).resolve() for row in rows if row not in aside}
        assert aside and not learnt & {Path(row.label).resolve() for row in aside}
    with pytest.raises(UserError, match=r"has 3 volumes with labels, too few for 4.*are one"):
        held_out_rows(rows, fold=(0, 4), where="")
    with pytest.raises(UserError, match=r"has 1 volumes .*images of one label are one"):
        held_out_rows(rows[::2][:2], fold=None, where="")


def test_labels_alone_and_backgrounds_are_for_rendering(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, 2)
    sources = rendering_sources(roles_of(settings_of(sheet)))
    (geometry,) = sources.labels
    np.testing.assert_array_equal(geometry.mask, label() > 0)
    assert geometry.spacing_um == (3.0, 3.0, 3.0)
    (tissue,) = sources.backgrounds
    assert tissue.middle == np.median(image(9))
    nothing = rendering_sources(roles_of(settings_of(sheet, rendered=0.0)))
    assert not nothing.labels
    assert not nothing.backgrounds


def test_the_label_of_a_volume_that_is_held_out_is_no_geometry(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, 2)
    lines = sheet.read_text().splitlines()
    own = write_nifti(tmp_path / "own.nii.gz", label())
    (tmp_path / "same.nii.gz").symlink_to(own)
    lines[2] = lines[2].replace(f"{tmp_path}/label1.nii.gz", str(own))
    lines[4] = lines[4].replace(f"{tmp_path}/label.nii.gz", f"{tmp_path}/same.nii.gz")
    sheet.write_text("\n".join(lines))
    held_out = [roles_of(settings_of(sheet, fold=(k, 2))).held_out[0].label for k in (0, 1)]
    rendered = [len(roles_of(settings_of(sheet, fold=(k, 2))).vessels) for k in (0, 1)]
    assert rendered == [0 if name == str(own) else 1 for name in held_out]
    assert sorted(rendered) == [0, 1]


def test_a_volume_under_two_names_is_refused(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, 2)
    (tmp_path / "other.tif").symlink_to(tmp_path / "v0.tif")
    sheet.write_text(sheet.read_text() + f"\n{tmp_path}/other.tif\t\t3,1.5,1.5\t\t")
    with pytest.raises(UserError, match=r"line 7.*other\.tif is listed twice"):
        read_sheet(sheet)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "v.tif", image())
    tifffile.imwrite(tmp_path / "small.tif", label()[:, :-1])
    tifffile.imwrite(tmp_path / "full.tif", np.ones(SHAPE, np.uint8))
    tifffile.imwrite(tmp_path / "empty.tif", np.zeros(SHAPE, np.uint8))
    (tmp_path / "v.lif").write_bytes(b"?")
    write_zarr(tmp_path / "two.ome.zarr", np.stack([image(), image()]))
    write_zarr(tmp_path / "wide.ome.zarr", image(), (3.0, 2.0, 2.0))
    broken = image().astype(np.float32)
    broken[0, 0, 0] = np.nan
    write_nifti(tmp_path / "nan.nii.gz", broken)
    write_nifti(tmp_path / "coarse.nii.gz", image().astype(np.int16), spacing_um=(3.0, 1.5, 2.0))
    write_zarr(tmp_path / "nan.ome.zarr", broken)
    (tmp_path / "old.ome.zarr").mkdir()
    (tmp_path / "old.ome.zarr/.zattrs").write_text("{}")
    cases = {
        ("coarse.nii.gz", None): "2 µm apart along x where spacing_um says 1.5",
        ("v.tif", "coarse.nii.gz"): "coarse.nii.gz: .*2 µm apart along x",
        ("nan.ome.zarr", None): r"nan\.ome\.zarr: .*NaN or infinite",
        ("empty.tif", None): r"empty\.tif: is 0 everywhere",
        ("full.tif", None): r"full\.tif: is 1 everywhere",
        ("old.ome.zarr", None): "is OME-Zarr 0.4 or older",
        ("v.tif", "small.tif"): "12 × 19 × 24 voxels .* image is 12 × 20 × 24",
        ("v.tif", "full.tif"): "marks every voxel",
        ("v.tif", "empty.tif"): "marks no voxel",
        ("v.lif", None): "is no TIFF, NIfTI",
        ("none.tif", None): "does not exist",
        ("none", None): "does not exist",
        ("two.ome.zarr", None): "axes c, z, y, x",
        ("wide.ome.zarr", None): "2 µm apart along y where spacing_um says 1.5",
        ("nan.nii.gz", None): r"nan\.nii\.gz: .*NaN or infinite",
        ("v.tif", "nan.nii.gz"): "not finite",
    }
    for (name, mask), what in cases.items():
        cells = {"image": str(tmp_path / name)}
        if mask:
            cells["label"] = str(tmp_path / mask)
        with pytest.raises(UserError, match=what):
            read_given(row(**cells))
    dark = row(image=str(tmp_path / "empty.tif"), background=True)
    with pytest.raises(UserError, match="dark"):
        rendering_sources(Roles(backgrounds=(dark,)))
    with pytest.raises(UserError, match="does not exist"):
        read_sheet(tmp_path / "no.tsv")


def test_the_identity_follows_rows_and_files(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, 2)
    before = sheet_identity(sheet)
    sheet.write_text("# a note\n" + sheet.read_text(), encoding="utf-8")
    assert sheet_identity(sheet) == before
    tifffile.imwrite(tmp_path / "v1.tif", image(7)[:-1])
    changed = sheet_identity(sheet)
    assert changed != before
    sheet.write_text(sheet.read_text().replace("3,3,3", "3,3,2"), encoding="utf-8")
    assert sheet_identity(sheet) not in {before, changed}
    assert sheet_identity(tmp_path / "no.tsv") == "cannot be read"


def test_recipes_learn_from_what_the_sheet_offers(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path, 2)
    settings = settings_of(sheet, rendered=0.5, steps=10)
    mixed = patches_of(settings)
    assert isinstance(mixed, MixedPatches)
    assert mixed.labelled(0)[0].shape == (16, 16, 16)
    assert isinstance(mixed.seldom, RenderedPatches)
    assert len(mixed.seldom.sources.labels) == 1
    alone = patches_of(settings.model_copy(update={"rendered": 0.0}))
    assert isinstance(alone, VolumePatches)
    lines = sheet.read_text().splitlines()
    sheet.write_text("\n".join([lines[0], lines[3]]), encoding="utf-8")
    adapted = patches_of(settings)
    assert isinstance(adapted, AdaptedPatches)
    assert adapted.unlabelled(0).shape == (16, 16, 16)
    with pytest.raises(UserError, match="no folds"):
        patches_of(settings.model_copy(update={"fold": (0, 2)}))
    sheet.write_text("\n".join([lines[0], lines[4]]), encoding="utf-8")
    assert isinstance(patches_of(settings), RenderedPatches)


def test_a_label_must_lie_where_its_image_does(tmp_path: Path) -> None:
    place = np.array([[0.0015, 0, 0, 1], [0, 0.0015, 0, 2], [0, 0, 0.003, 3.0]])
    volume = write_nifti(tmp_path / "v.nii.gz", image().astype(np.int16), affine=place)

    def read(affine: np.ndarray | None) -> None:
        mask = write_nifti(tmp_path / "m.nii.gz", label(), affine=affine)
        read_given(row(image=str(volume), label=str(mask)))

    read(None)
    read(place)
    beside = np.zeros((3, 4))
    beside[0, 3] = 0.0005  # a third of a voxel
    read(place + beside)
    with pytest.raises(UserError, match=r"m\.nii\.gz: lies elsewhere than its image, by 2 voxels"):
        read(place + 6 * beside)
    mirrored = place * np.array([[-1, 1, 1, 1], [1] * 4, [1] * 4])
    with pytest.raises(UserError, match="lies elsewhere"):
        read(mirrored)


def test_memory_is_bounded_from_headers(tmp_path: Path) -> None:
    shape = (40, 200, 200)
    rng = np.random.default_rng(0)
    mask = np.zeros(shape, np.uint8)
    mask[:, :25] = 1
    lines = ["image\tlabel\tspacing_um\tbackground"]
    for k, dtype in enumerate([np.uint8, np.uint16, np.float32]):
        tifffile.imwrite(tmp_path / f"v{k}.tif", (200 * rng.random(shape)).astype(dtype))
        tifffile.imwrite(tmp_path / f"m{k}.tif", mask)
        lines.append(f"{tmp_path}/v{k}.tif\t{tmp_path}/m{k}.tif\t3,1.5,1.5\t")
    tifffile.imwrite(tmp_path / "b.tif", (200 * rng.random(shape)).astype(np.uint16))
    tifffile.imwrite(tmp_path / "g.tif", mask)
    lines += [f"{tmp_path}/b.tif\t\t\tyes", f"\t{tmp_path}/g.tif\t2,2,2\t"]
    sheet = tmp_path / "v.tsv"
    sheet.write_text("\n".join(lines))
    settings = settings_of(sheet, memory_gb=3)
    tracemalloc.start()
    source = patches_of(settings)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    bound = volumes_bytes(roles_of(settings))
    assert isinstance(source, MixedPatches)
    assert 0.5 * bound < peak < bound
    assert memory_mb(settings) == pytest.approx(3000 + bound / 1e6, abs=1)
    assert memory_mb(StudentConfig(network="student", memory_gb=3)) == 3000


def test_headers_are_read_again_only_where_a_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str | None] = []

    def counted(row: TrainingVolume) -> object:
        opened.append(row.image)
        return open_row(row)

    monkeypatch.setattr("vasculome.stages.volume_files.open_row", counted)
    settings = settings_of(sheet_of(tmp_path, 3))
    before, rows = memory_mb(settings), len(opened)
    assert rows and (memory_mb(settings), len(opened)) == (before, rows)
    changed = tmp_path / "v1.tif"
    times = changed.stat()
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert memory_mb(settings) == before
    assert opened[rows:] == [str(changed)]
