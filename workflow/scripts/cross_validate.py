"""Test the networks of all folds on the whole volumes that they never saw."""

from vasculome.stages.cross_validate import cross_validate
from vasculome.stages.job import run_logged

run_logged(
    cross_validate,
    config=snakemake.config,
    model=snakemake.wildcards.folded,
    log_path=snakemake.log[0],
)
