# vasculome: from raw files to whole-brain vascular maps.
#
#   snakemake --cores all             every sample: maps, report, cohort
#   snakemake --cores all maps        maps only
#   snakemake --cores all all_mask    one stage of every sample, and what it needs
#   snakemake --cores all models      trained networks (docs/training.md)
#   snakemake -n                      what would run, and why
#
# What a run does is told in config/config.yaml and config/samples.tsv (see config/README.md).

from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/stitching.smk"
include: "workflow/rules/microscopy.smk"
include: "workflow/rules/ultrasound.smk"
include: "workflow/rules/maps.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/models.smk"


rule all:
    """Maps and report of every sample, and the cohort's table; without samples the networks."""
    default_target: True
    input:
        [rules.maps.input, rules.report.input] if SAMPLES else rules.models.input,


# One target a stage: all_mask, all_track and so on, for every sample that has it.
for stage in CATALOG:

    rule:
        name:
            f"all_{stage}"
        input:
            expand(
                f"{RESULTS}/{{sample}}/manifests/{stage}.json",
                sample=samples_with(stage),
            ),
