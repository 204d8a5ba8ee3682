"""Tell how good the maps of tracks are, from the tracks themselves."""

from vasculome.stages.job import run_stage

run_stage(
    "ulm_quality",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
