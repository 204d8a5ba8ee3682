"""Learn from the first block where to cut clutter, and the echo of a microbubble."""

from vasculome.stages.job import run_stage

run_stage(
    "calibrate",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
