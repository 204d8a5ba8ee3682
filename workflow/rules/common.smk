"""What the rules share: the checked configuration, paths and resources."""

import sys

from vasculome.errors import UserError
from vasculome.stages.catalog import CATALOG, stages_of
from vasculome.stages.job import MODELS, Job, check_sample, load_run
from vasculome.stages.models import training_of, trainings
from vasculome.stages.teachers import check_segmenters
from vasculome.stages.volume_files import memory_mb


def checked(function, *args, **kwargs):
    """Call `function`; what the user has done wrong ends the run in one line."""
    try:
        return function(*args, **kwargs)
    except UserError as error:
        sys.exit(f"vasculome: {error}")


CONFIG, SAMPLES = checked(load_run, config)
SAMPLE = {sample.sample: sample for sample in SAMPLES}
RESULTS = CONFIG.results
# Without worker processes a job keeps one core busy: the others are for other jobs.
INLINE = CONFIG.compute.scheduler == "inline"
WORKERS = 1 if INLINE else CONFIG.compute.workers or workflow.cores or 1

for sample in SAMPLES:
    checked(check_sample, CONFIG, sample, threads=WORKERS)
checked(check_segmenters, CONFIG)


# Snakemake takes an empty pattern for none at all: without names nothing must match.
NOTHING = "(?!)"


wildcard_constraints:
    sample="|".join(SAMPLE) or NOTHING,


def job(stage, wildcards):
    """Return the job of a stage for the sample in `wildcards`."""
    return Job(stage, CONFIG, SAMPLE[wildcards.sample], WORKERS)


def identity(stage):
    """Return a function for `params`: a change of code, settings or raw data reruns the stage."""
    return lambda wildcards: checked(job(stage, wildcards).identity)


def mem_mb(stage):
    """Return a function for `resources`: the stage's memory bound, more at each attempt."""
    return lambda wildcards, attempt: attempt * checked(job(stage, wildcards).bound).total_mb


def raw(wildcards):
    """Return the raw data of the sample in `wildcards`."""
    return SAMPLE[wildcards.sample].path


def inputs_of_stage(stage):
    """Return a function for `input`: manifests of the stages that the sample has before it."""
    return lambda wildcards: [
        f"{RESULTS}/{before.sample.sample}/manifests/{before.stage}.json"
        for before in job(stage, wildcards).inputs().values()
    ]


def samples_with(stage):
    """Return the names of the samples that have a stage."""
    return [sample.sample for sample in SAMPLES if stage in stages_of(sample, CONFIG)]


def row(wildcards):
    """Return the row of the sample sheet, or the slices of the volume, as the page tells them."""
    return SAMPLE[wildcards.sample].row()


def manifests_of_sample(wildcards):
    """Return the manifests of all stages of the sample in `wildcards`."""
    stages = stages_of(SAMPLE[wildcards.sample], CONFIG)
    return [f"{RESULTS}/{wildcards.sample}/manifests/{stage}.json" for stage in stages]


def settings_of_model(wildcards):
    """Return the settings of the network in `wildcards`."""
    return CONFIG.models[wildcards.model]


def manifests_of_teacher(wildcards):
    """Return the manifest of the run's network that the one in `wildcards` learns from, if any."""
    training = training_of(CONFIG, wildcards.model, int(wildcards.seed))
    names = {teacher.name for teacher in training.teachers}
    return [f"{RESULTS}/{MODELS}/{name}/manifest.json" for name in names]


def manifests_of_model(wildcards):
    """Return the manifests of all trainings of the network in `wildcards`."""
    return [training.manifest_path for training in trainings(CONFIG, of=wildcards.model)]


def settings_of_folds(wildcards):
    """Return the settings of the first fold of the entry in `wildcards`."""
    return CONFIG.models[CONFIG.folds[wildcards.folded][0]]


def manifests_of_folds(wildcards):
    """Return the manifests of the networks of all folds of the entry in `wildcards`."""
    return [f"{RESULTS}/{MODELS}/{name}/manifest.json" for name in CONFIG.folds[wildcards.folded]]


def manifests_of_models(wildcards):
    """Return the manifests of all networks; a configuration without any ends in one line."""
    checked(trainings, CONFIG)
    return [f"{RESULTS}/{MODELS}/{model}/manifest.json" for model in CONFIG.models]
