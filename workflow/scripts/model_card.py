"""Tell how good the seeds of a network are, and keep the best."""

from vasculome.stages.job import run_logged
from vasculome.stages.model_card import write_model_card

run_logged(
    write_model_card,
    config=snakemake.config,
    model=snakemake.wildcards.model,
    log_path=snakemake.log[0],
)
