"""Find the position of every tile from the offsets of pairs."""

from vasculome.stages.job import run_stage

run_stage(
    "place",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
