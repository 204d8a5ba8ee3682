"""Stitching: overlapping tiles to one position and one brightness each."""


rule register:
    """Find the offset of every pair of overlapping tiles."""
    input:
        raw=raw,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/register.json",
    log:
        f"{RESULTS}/logs/{{sample}}/register.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/register.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("register"),
        runtime=240,
    params:
        identity=identity("register"),
    script:
        "../scripts/register.py"


rule place:
    """Find the position of every tile from the offsets of pairs."""
    input:
        offsets=rules.register.output.manifest,
        raw=raw,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/place.json",
    log:
        f"{RESULTS}/logs/{{sample}}/place.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/place.tsv"
    threads: 1
    resources:
        mem_mb=mem_mb("place"),
        runtime=60,
    params:
        identity=identity("place"),
    script:
        "../scripts/place.py"


rule illuminate:
    """Find the shape of the light, the brightness of each tile, and blank planes."""
    input:
        placement=rules.place.output.manifest,
        raw=raw,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/illuminate.json",
    log:
        f"{RESULTS}/logs/{{sample}}/illuminate.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/illuminate.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("illuminate"),
        runtime=240,
    params:
        identity=identity("illuminate"),
    script:
        "../scripts/illuminate.py"
