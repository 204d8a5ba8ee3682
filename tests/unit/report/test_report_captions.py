import re
from pathlib import Path

import docutils.core
import jinja2
import pytest

WORKFLOW = Path(__file__).parents[3] / "workflow"
CAPTIONS = sorted((WORKFLOW / "report").glob("*.rst"))


class _Snakemake:
    class wildcards:
        sample = "mouse-01"


def test_every_caption_is_used():
    rules = [WORKFLOW.parent / "Snakefile", *(WORKFLOW / "rules").glob("*.smk")]
    named = re.findall(r"report/(\w+)\.rst", "".join(path.read_text() for path in rules))
    assert sorted(named) == [path.stem for path in CAPTIONS]


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.stem)
def test_captions_are_templates_of_valid_text(path):
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(path.read_text())
    text = template.render(snakemake=_Snakemake)
    html = docutils.core.publish_string(
        text, writer="html5", settings_overrides={"halt_level": 2, "report_level": 2}
    )
    assert len(html) > 100
