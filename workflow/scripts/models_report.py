"""Write the page of all networks: learning curves, metrics over seeds, memory and time."""

from vasculome.report.build import report_models
from vasculome.stages.job import run_logged

run_logged(
    report_models,
    config=snakemake.config,
    out=snakemake.output.page,
    log_path=snakemake.log[0],
)
