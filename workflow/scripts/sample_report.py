"""Write the self-contained page of one sample, and its pictures as files."""

from vasculome.report.build import report_sample
from vasculome.stages.job import run_logged

run_logged(
    report_sample,
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    out=snakemake.output.page,
    log_path=snakemake.log[0],
)
