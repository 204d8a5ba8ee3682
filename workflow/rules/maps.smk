"""Both chains end here: maps, volumes of slices, and the target that asks for all of them."""


rule vessel_maps:
    """Map vessel volume fraction, length density and radius."""
    input:
        mask=rules.mask.output.manifest,
        skeleton=rules.skeleton.output.manifest,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/vessel_maps.json",
    log:
        f"{RESULTS}/logs/{{sample}}/vessel_maps.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/vessel_maps.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("vessel_maps"),
        runtime=60,
    params:
        identity=identity("vessel_maps"),
    script:
        "../scripts/vessel_maps.py"


rule ulm_maps:
    """Render density, velocity and direction maps from tracks."""
    input:
        iq=rules.ingest_iq.output.manifest,
        detections=rules.localize.output.manifest,
        tracks=rules.track.output.manifest,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/ulm_maps.json",
    log:
        f"{RESULTS}/logs/{{sample}}/ulm_maps.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/ulm_maps.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("ulm_maps"),
        runtime=60,
    params:
        identity=identity("ulm_maps"),
    script:
        "../scripts/ulm_maps.py"


rule ulm_quality:
    """Tell resolution, saturation and gridding of the maps."""
    input:
        iq=rules.ingest_iq.output.manifest,
        detections=rules.localize.output.manifest,
        tracks=rules.track.output.manifest,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/ulm_quality.json",
    log:
        f"{RESULTS}/logs/{{sample}}/ulm_quality.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/ulm_quality.tsv"
    threads: 1
    resources:
        mem_mb=mem_mb("ulm_quality"),
        runtime=60,
    params:
        identity=identity("ulm_quality"),
    script:
        "../scripts/ulm_quality.py"


rule superresolve:
    """Map vessels by a network, on a grid 8 times finer than its pixels."""
    input:
        iq=rules.ingest_iq.output.manifest,
        calibration=rules.calibrate.output.manifest,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/superresolve.json",
    log:
        f"{RESULTS}/logs/{{sample}}/superresolve.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/superresolve.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("superresolve"),
        runtime=1440,
    params:
        identity=identity("superresolve"),
    script:
        "../scripts/superresolve.py"


rule join_slices:
    """Join the maps of 2-D slices to those of their volume."""
    input:
        slices=inputs_of_stage("join_slices"),
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/join_slices.json",
    log:
        f"{RESULTS}/logs/{{sample}}/join_slices.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/join_slices.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("join_slices"),
        runtime=60,
    params:
        identity=identity("join_slices"),
    script:
        "../scripts/join_slices.py"


rule maps:
    """All maps of every sample."""
    input:
        expand(rules.vessel_maps.output.manifest, sample=samples_with("vessel_maps")),
        expand(rules.ulm_maps.output.manifest, sample=samples_with("ulm_maps")),
        expand(rules.superresolve.output.manifest, sample=samples_with("superresolve")),
        expand(rules.join_slices.output.manifest, sample=samples_with("join_slices")),
