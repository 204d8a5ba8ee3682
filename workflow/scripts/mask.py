"""Keep connected weak voxels that hold a strong one and are large enough."""

from vasculome.stages.job import run_stage

run_stage(
    "mask",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
