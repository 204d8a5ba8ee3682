"""Microscopy: raw TIFFs to mask, skeleton and graph."""


rule ingest_image:
    """Copy raw microscopy files into one OME-Zarr, tiles blended where they overlap."""
    input:
        stitching=inputs_of_stage("ingest_image"),
        raw=raw,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/ingest_image.json",
    log:
        f"{RESULTS}/logs/{{sample}}/ingest_image.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/ingest_image.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("ingest_image"),
        runtime=240,
    params:
        identity=identity("ingest_image"),
    script:
        "../scripts/ingest_image.py"


rule normalize:
    """Find the intensity range of the whole volume from its histogram."""
    input:
        image=rules.ingest_image.output.manifest,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/normalize.json",
    log:
        f"{RESULTS}/logs/{{sample}}/normalize.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/normalize.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("normalize"),
        runtime=60,
    params:
        identity=identity("normalize"),
    script:
        "../scripts/normalize.py"


rule enhance:
    """Enhance vessels, by a filter or a network, and sort voxels into none, weak and strong."""
    input:
        image=rules.ingest_image.output.manifest,
        intensity_range=rules.normalize.output.manifest,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/enhance.json",
    log:
        f"{RESULTS}/logs/{{sample}}/enhance.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/enhance.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("enhance"),
        runtime=480,
        gpu=int(CONFIG.microscopy.segment.needs_gpu),
    params:
        identity=identity("enhance"),
    script:
        "../scripts/enhance.py"


rule mask:
    """Keep connected weak voxels that hold a strong one and are large enough."""
    input:
        candidates=rules.enhance.output.manifest,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/mask.json",
    log:
        f"{RESULTS}/logs/{{sample}}/mask.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/mask.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("mask"),
        runtime=120,
    params:
        identity=identity("mask"),
    script:
        "../scripts/mask.py"


rule skeleton:
    """Thin the mask to centre lines and measure radii."""
    input:
        mask=rules.mask.output.manifest,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/skeleton.json",
    log:
        f"{RESULTS}/logs/{{sample}}/skeleton.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/skeleton.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("skeleton"),
        runtime=480,
    params:
        identity=identity("skeleton"),
    script:
        "../scripts/skeleton.py"


rule graph:
    """Find branch points and ends, and the vessels between them."""
    input:
        skeleton=rules.skeleton.output.manifest,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/graph.json",
    log:
        f"{RESULTS}/logs/{{sample}}/graph.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/graph.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("graph"),
        runtime=120,
    params:
        identity=identity("graph"),
    script:
        "../scripts/graph.py"
