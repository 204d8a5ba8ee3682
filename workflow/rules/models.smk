"""Networks: one training a seed, a card a network, a page for all."""


wildcard_constraints:
    model="|".join(CONFIG.models) or NOTHING,
    folded="|".join(CONFIG.folds) or NOTHING,
    seed=r"\d+",


# Checkpoints stay beside the manifest and are no output: Snakemake deletes those of killed jobs.
rule train_model:
    """Train one network from one seed, from its last checkpoint on."""
    input:
        teacher=manifests_of_teacher,
    output:
        manifest=f"{RESULTS}/{MODELS}/{{model}}/seed-{{seed}}/manifest.json",
    log:
        f"{RESULTS}/logs/{MODELS}/{{model}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{MODELS}/{{model}}/seed-{{seed}}.tsv"
    threads: lambda wildcards: settings_of_model(wildcards).threads
    resources:
        mem_mb=lambda wildcards, attempt: attempt * checked(memory_mb, settings_of_model(wildcards)),
        runtime=1440,
        gpu=lambda wildcards: int(settings_of_model(wildcards).device == "cuda"),
    params:
        identity=lambda wildcards: training_of(
            CONFIG, wildcards.model, int(wildcards.seed)
        ).identity(),
    script:
        "../scripts/train_model.py"


rule model_card:
    """Tell how good the seeds of a network are, and keep the weights of the best."""
    input:
        trainings=manifests_of_model,
    output:
        manifest=f"{RESULTS}/{MODELS}/{{model}}/manifest.json",
    log:
        f"{RESULTS}/logs/{MODELS}/{{model}}/card.log",
    benchmark:
        f"{RESULTS}/benchmarks/{MODELS}/{{model}}/card.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=10,
    script:
        "../scripts/model_card.py"


rule cross_validate:
    """Test the networks of all folds on the whole volumes that they never saw."""
    input:
        manifests=manifests_of_folds,
    output:
        metrics=f"{RESULTS}/{MODELS}/{{folded}}/folds.json",
    log:
        f"{RESULTS}/logs/{MODELS}/{{folded}}/folds.log",
    benchmark:
        f"{RESULTS}/benchmarks/{MODELS}/{{folded}}/folds.tsv"
    threads: lambda wildcards: settings_of_folds(wildcards).threads
    resources:
        mem_mb=lambda wildcards, attempt: attempt * checked(memory_mb, settings_of_folds(wildcards)),
        runtime=240,
        gpu=lambda wildcards: int(settings_of_folds(wildcards).device == "cuda"),
    script:
        "../scripts/cross_validate.py"


rule models_report:
    """Write the page of all networks: learning curves, metrics over seeds, memory and time."""
    input:
        manifests=manifests_of_models,
        folds=expand(f"{RESULTS}/{MODELS}/{{folded}}/folds.json", folded=CONFIG.folds),
    output:
        page=report(
            f"{RESULTS}/{MODELS}/report.html",
            caption="../report/models.rst",
            category="Networks",
        ),
    log:
        f"{RESULTS}/logs/{MODELS}/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/{MODELS}/report.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=10,
    script:
        "../scripts/models_report.py"


rule folds:
    """Metrics over folds of every entry that is trained in folds."""
    input:
        rules.models_report.input.folds,


rule models:
    """Trained weights of all networks, their cards and their page."""
    input:
        rules.models_report.output.page,
