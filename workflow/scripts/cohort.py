"""Gather the key numbers of all samples in one table."""

from vasculome.report.build import report_cohort
from vasculome.stages.job import run_logged

run_logged(
    report_cohort,
    config=snakemake.config,
    table=snakemake.output.table,
    page=snakemake.output.page,
    log_path=snakemake.log[0],
)
