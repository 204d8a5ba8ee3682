"""The networks of a run: which trainings there are, where their files are, what identifies them.

Light: the workflow reads this before anything runs. What trains is in ``stages.train``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasculome.config import ModelConfig, RunConfig, TeacherConfig
from vasculome.errors import UserError
from vasculome.stages.digest import code_digest, digest_of
from vasculome.stages.job import MODELS
from vasculome.stages.network_card import weights_digest, weights_path
from vasculome.stages.volume_sheet import sheet_identity
from vasculome.storage.shards import file_checksum

_CHANGES_NO_RESULT = {
    "seeds",
    "device",
    "threads",
    "movie_threads",
    "patch_threads",
    "memory_gb",
    "checkpoint_every_s",
}
"""Where and how fast a network learns, and what else is trained beside it."""


@dataclass(frozen=True)
class Training:
    """One network, from one seed.

    Attributes
    ----------
    results
        Folder of the run's results.
    name, settings
        An entry of ``models`` in the configuration.
    seed
        One of its seeds.
    teachers
        Trainings of the network that it learns from, if that is one of the run's.
    """

    results: str
    name: str
    settings: ModelConfig
    seed: int
    teachers: tuple[Training, ...] = ()

    @property
    def folder(self) -> Path:
        """Folder of this training's results."""
        return model_folder(self.results, self.name) / f"seed-{self.seed}"

    @property
    def manifest_path(self) -> Path:
        """Where the manifest is, which is written last."""
        return self.folder / "manifest.json"

    @property
    def weights_path(self) -> Path:
        """Where the weights are; their card is beside them."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def record_path(self) -> Path:
        """Where the learning curves are."""
        return self.folder / "record.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoint: other settings or other code have another one."""
        return self.folder / "checkpoints" / self.identity()

    @property
    def teacher(self) -> Path | None:
        """Where the weights of the network are that it learns from, if it does.

        Raises
        ------
        UserError
            None come with vasculome.
        """
        given = getattr(self.settings, "teacher", None)
        if self.teachers:
            return chosen_path(self.results, given)
        return None if given is None else weights_path(given, "teacher")

    def identity(self) -> str:
        """Return a digest of the code, the settings and the seed."""
        content = self.settings.model_dump(mode="json", exclude=_CHANGES_NO_RESULT)
        code = code_digest("vasculome.stages.train")
        finder = _checksum(getattr(self.settings, "finder", None))
        whole = {"code": code, "settings": content, "finder": finder, "seed": self.seed}
        volumes = getattr(self.settings, "volumes", None)
        if volumes is not None:
            whole["volumes"] = sheet_identity(Path(volumes))
        if self.teachers:
            whole["teacher"] = [teacher.identity() for teacher in self.teachers]
        elif (given := getattr(self.settings, "teacher", None)) is not None:
            whole["teacher"] = weights_digest(given, "teacher")
        return digest_of(whole)


def _checksum(path: str | Path | None) -> str | None:
    """Return what identifies a file; training tells of one that cannot be read."""
    try:
        return None if path is None else file_checksum(Path(path))
    except OSError:
        return "cannot be read"


def model_folder(results: str, name: str) -> Path:
    """Return the folder of a network's results."""
    return Path(results) / MODELS / name


def chosen_path(results: str, name: str) -> Path:
    """Return where the weights of a network's best seed are; their card is beside them."""
    return model_folder(results, name) / f"{name}.safetensors"


def folds_path(results: str, name: str) -> Path:
    """Return where the metrics of an entry over its folds are."""
    return model_folder(results, name) / "folds.json"


def training_of(config: RunConfig, model: str, seed: int) -> Training:
    """Return one training of the configuration."""
    settings = config.models[model]
    return Training(config.results, model, settings, seed, _teachers(config, settings))


def _teachers(config: RunConfig, settings: ModelConfig) -> tuple[Training, ...]:
    """Return the trainings of the entry that a student names as its teacher, or none."""
    given = getattr(settings, "teacher", None)
    if given is None or not isinstance(config.models.get(given), TeacherConfig):
        return ()
    return tuple(trainings(config, of=given))


def trainings(config: RunConfig, *, of: str | None = None) -> list[Training]:
    """Return the trainings of all networks, or of one.

    Raises
    ------
    UserError
        There is none.
    """
    names = config.models if of is None else [of]
    found = [
        training_of(config, name, seed) for name in names for seed in config.models[name].seeds
    ]
    if not found:
        raise UserError(
            "there is no network to train",
            where="config: models",
            fix="say which: --configfile config/models/quick.yaml is an example",
        )
    return found


def read_training(training: Training) -> dict[str, Any]:
    """Return the manifest of a training that is done.

    Raises
    ------
    UserError
        It is missing or damaged.
    """
    path = training.manifest_path
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if lacking := {"content", "summary"} - content.keys():
            raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"cannot read the manifest of a training: {error}",
            where=path,
            fix="delete it and run `snakemake models` again",
        ) from None
    return content
