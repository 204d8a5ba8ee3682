"""The configuration refuses what it does not know, in one line that names the key."""

import json
from pathlib import Path

import pytest
import yaml

from vasculome.config import (
    BubbleNetConfig,
    RunConfig,
    Sample,
    SiteFinderConfig,
    StudentConfig,
    StulmConfig,
    TeacherConfig,
    parse_config,
    parse_samples,
)
from vasculome.errors import UserError

ROOT = Path(__file__).parents[2]
HEADER = "sample\tmodality\tpath\tformat\tspacing_um\taxes\tframe_rate_hz\twavelength_um\tpose_mm"


def test_shipped_config_says_every_key_and_its_default():
    shipped = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    assert shipped == json.loads(RunConfig().model_dump_json())


def test_shipped_config_comments_every_key():
    lines = (ROOT / "config/config.yaml").read_text().splitlines()
    groups = {
        "compute",
        "storage",
        "microscopy",
        "stitch",
        "normalize",
        "segment",
        "skeleton",
        "maps",
    }
    groups |= {
        "pairs",
        "positions",
        "light",
        "ultrasound",
        "clutter",
        "psf",
        "probe",
        "localize",
        "track",
    }
    previous = ""
    for line in lines:
        key = line.strip().split(":")[0]
        if line.strip() and not line.strip().startswith("#") and key not in groups:
            # Some share the comment above their partner.
            assert previous.startswith("#") or key in {
                "high_threshold",
                "keep_to",
                "gains",
                "upper_percent",
            }, f"no comment above {key}"
        previous = line.strip()


@pytest.mark.parametrize("name", ["quick", "ship", "paper", "benchmark", "vpbsd"])
def test_presets_of_networks_are_valid_and_have_no_samples(name):
    content = yaml.safe_load((ROOT / f"config/models/{name}.yaml").read_text())
    config = parse_config(content, where=name)
    assert config.models and config.samples is None


def test_quick_preset_says_and_comments_every_key_of_a_network():
    text = (ROOT / "config/models/quick.yaml").read_text()
    first, second, third, teacher, student = yaml.safe_load(text)["models"].values()
    assert set(first) == set(BubbleNetConfig.model_fields)
    assert set(first) | set(second) >= set(StulmConfig.model_fields)
    assert set(first) | set(third) >= set(SiteFinderConfig.model_fields)
    assert set(first) | set(teacher) >= set(TeacherConfig.model_fields)
    assert set(first) | set(teacher) | set(student) >= set(StudentConfig.model_fields)
    # Some share the comment above their partner, and what both networks have is explained once.
    together = {"patch_px", "batch_size", "warmup", "validation_movies", "dilation_px"}
    together |= {"threshold", "top_k", "results", "cnn", "depth"}
    together |= {"heads", "n_codes", "fine_tune_rate", "validation_patches"}
    previous, seen = "", set()
    for line in map(str.strip, text.splitlines()):
        key = line.split(":")[0]
        if line and not line.startswith("#") and not key.startswith(("quick_", "models")):
            assert previous.startswith("#") or key in seen | together, f"no comment above {key}"
            seen.add(key)
        previous = line


@pytest.mark.parametrize(("name", "model"), [("config", RunConfig), ("sample", Sample)])
def test_schemas_are_in_step_with_the_models(name, model):
    on_disk = json.loads((ROOT / f"workflow/schemas/{name}.schema.json").read_text())
    assert on_disk == model.model_json_schema(), "run: vasculome schemas workflow/schemas"


def _by_network(**settings):
    return {"ultrasound": {"localize": {"localizer": "stulm", **settings}}}


def _stulm(**settings):
    return {"models": {"a": {"network": "stulm", **settings}}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"resultz": "x"}, "resultz: unknown key"),
        ({"microscopy": {"segment": {"scales_px": [1]}}}, "microscopy.segment.scales_px: unknown"),
        ({"microscopy": {"segment": {"low_threshold": -1}}}, "greater than 0, got -1"),
        ({"microscopy": {"segment": {"low_threshold": 0.5}}}, "must not exceed high_threshold"),
        (
            {"microscopy": {"segment": {"segmenter": "magic"}}},
            "'teacher', or: String should match pattern '\\.safetensors$', got 'magic'",
        ),
        ({"microscopy": {"segment": {"network": {"overlap": 0.9}}}}, "segment.network.overlap: "),
        ({"microscopy": {"normalize": {"upper_percent": 0}}}, "lower_percent must be below"),
        ({"microscopy": {"maps": {"voxel_um": float("nan")}}}, "microscopy.maps.voxel_um"),
        ({"storage": {"chunk_zyx": [64, 64, 48]}}, "must be multiples of chunk_zyx"),
        ({"storage": {"chunk_zyx": [64, 64]}}, "storage.chunk_zyx.2: is missing"),
        ({"compute": {"scheduler": "address"}}, "'address' is needed"),
        ({"compute": {"scheduler": "slurm"}}, "compute.scheduler"),
        ({"ultrasound": {"clutter": {"keep_from": 501}}}, "nothing would be kept"),
        ({"ultrasound": {"clutter": {"keep_to": 2}}}, "keep_to must not be below keep_from"),
        ({"ultrasound": {"track": {"max_speed_mm_s": "fast"}}}, "got 'fast'"),
        (_by_network(max_maxima=2), "localize: localizer stulm has no patches"),
        (_by_network(stulm={"min_probability": 1.5}), "localize.stulm.min_probability: Input"),
        (_by_network(stulm={"device": "tpu"}), "localize.stulm.device: Input should be 'cpu' or"),
        ({"models": {"a": {}}}, "models.a: needs the key 'network'"),
        ({"models": {"a": {"network": "unet"}}}, "expected tags: 'stulm', 'bubble_net'"),
        ({"models": {"a b": {"network": "stulm"}}}, "models.a b: String should match"),
        ({"models": {"a": {"network": "stulm", "steps": 0}}}, "models.a.steps: Input should be"),
        ({"models": {"a": {"network": "bubble_net", "pruning": True}}}, "a.pruning: unknown key"),
        ({"models": {"a": {"network": "stulm", "bubbles": [3]}}}, "a.bubbles.1: is missing"),
        (_stulm(pruning=True), "models.a: pruning needs intermediate_loss"),
        (_stulm(pruning=True, engine="dense"), "engine must not be dense"),
        (_stulm(cascade_steps=5), "cascade_steps needs intermediate_loss"),
        (_stulm(sparsify="none"), "sparsify none is for the dense network"),
        (_stulm(engine="minkowski"), "device must be cpu"),
        (_stulm(drops=[9, 9]), "drops must rise"),
        (_stulm(steps=50, drops=[20, 50]), "drops at step 50 is beyond the 50 steps"),
        (_stulm(steps=50, restart=[60, 0.1]), "restart at step 60 is beyond the 50 steps"),
        (_stulm(steps=50, dilated_steps=51), "dilated_steps is beyond the 50 steps"),
        (_stulm(seeds=[1, 1]), "seeds must differ"),
        (_stulm(bubbles=[5, 4]), "bubbles must not fall"),
    ],
)
def test_bad_config_ends_in_one_line_that_names_the_key(content, says):
    with pytest.raises(UserError) as caught:
        parse_config(content, where="config.yaml")
    message = str(caught.value)
    assert message.startswith("config.yaml: ") and says in message and "\n" not in message


def _sheet(*rows, header=HEADER):
    return "\n".join([header, *("\t".join(row) for row in rows)])


GOOD_2D = ("m", "ultrasound", "a.mat", "iq", "49,49", "zxt", "1000", "98")


def test_good_samples_are_read():
    sheet = _sheet(("b", "microscopy", "planes", "tiff_planes", "5, 2,2"), GOOD_2D)
    brain, mouse = parse_samples("# a comment\n\n" + sheet, where="s.tsv")
    assert brain.spacing_um == (5.0, 2.0, 2.0) and brain.origin_um == (0, 0, 0)
    assert mouse.axes == "zxt" and mouse.frame_rate_hz == 1000 and mouse.pose_mm is None


def test_pose_moves_the_origin():
    (sample,) = parse_samples(_sheet((*GOOD_2D, "-1.5,2")), where="s.tsv")
    assert sample.origin_um == (-1500.0, 2000.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no samples"),
        (HEADER, "no samples"),
        (_sheet(GOOD_2D, GOOD_2D), "line 3: sample 'm' is listed twice"),
        (_sheet(GOOD_2D, header=HEADER + "\tvoxel_mm"), "unknown column 'voxel_mm'"),
        (_sheet(GOOD_2D, header=HEADER + "\tpath"), "a column stands twice"),
        (_sheet(("a", "b"), header="sample\tmodality"), "column 'path' is missing"),
        (_sheet(("a/b", *GOOD_2D[1:])), "sample: String should match"),
        (_sheet(("a", "mri", *GOOD_2D[2:])), "modality"),
        (_sheet((*GOOD_2D[:3], "tiff_stack", *GOOD_2D[4:])), "does not belong to modality"),
        (_sheet((*GOOD_2D[:4], "49 um,49", *GOOD_2D[5:])), "got '49 um'"),
        (_sheet((*GOOD_2D[:4], "-1,49", *GOOD_2D[5:])), "greater than 0"),
        (_sheet((*GOOD_2D[:4], "49", *GOOD_2D[5:])), "spacing_um needs 2 or 3 numbers"),
        (_sheet((*GOOD_2D[:5], "zx", *GOOD_2D[6:])), "axes must name each of t, x, z once"),
        (_sheet((*GOOD_2D[:6], "1 kHz", *GOOD_2D[7:])), "frame_rate_hz"),
        (_sheet((*GOOD_2D, "1")), "pose_mm needs as many numbers"),
        (_sheet((*GOOD_2D, "1,2", "x", "y")), "11 cells under 9 columns"),
        (_sheet(("b", "microscopy", "p", "tiff_stack", "5,2,2", "zxt")), "axes is for ultrasound"),
    ],
)
def test_bad_sheets_end_in_one_line_that_names_the_place(text, says):
    with pytest.raises(UserError) as caught:
        parse_samples(text, where="samples.tsv")
    message = str(caught.value)
    assert message.startswith("samples.tsv") and says in message and "\n" not in message


def test_user_errors_travel_between_processes(handed_over):
    error = UserError("it is\nempty", where="a.tif", fix="export it again")
    copy = handed_over(error)
    assert str(copy) == str(error) == "a.tif: it is empty (export it again)"
