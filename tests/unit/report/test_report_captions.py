from pathlib import Path

import docutils.core
import jinja2
import pytest

CAPTIONS = sorted((Path(__file__).parents[3] / "workflow" / "report").glob("*.rst"))


class _Snakemake:
    class wildcards:
        sample = "mouse-01"


def test_there_is_a_caption_for_each_kind_of_picture_table_and_page():
    assert {path.stem for path in CAPTIONS} == {
        *("workflow", "sample", "cohort", "cohort_table"),
        *("overview", "vessel_fraction", "length_density", "mean_radius", "radius_histogram"),
        *("density", "speed", "direction", "axial_velocity"),
        *("speed_histogram", "track_length_histogram", "singular_values"),
    }


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.stem)
def test_captions_are_templates_of_valid_text(path):
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(path.read_text())
    text = template.render(snakemake=_Snakemake)
    html = docutils.core.publish_string(
        text, writer="html5", settings_overrides={"halt_level": 2, "report_level": 2}
    )
    assert len(html) > 100
