"""The networks of a run: which trainings there are, where their files are, what identifies them.

Light: the workflow reads this before anything runs. What trains is in ``stages.train``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasculome.config import ModelConfig, RunConfig
from vasculome.errors import UserError
from vasculome.stages.digest import code_digest, digest_of
from vasculome.stages.job import MODELS
from vasculome.storage.shards import file_checksum

_CHANGES_NO_RESULT = {
    "seeds",
    "device",
    "threads",
    "movie_threads",
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
    """

    results: str
    name: str
    settings: ModelConfig
    seed: int

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

    def identity(self) -> str:
        """Return a digest of the code, the settings and the seed."""
        content = self.settings.model_dump(mode="json", exclude=_CHANGES_NO_RESULT)
        code = code_digest("vasculome.stages.train")
        finder = _checksum(getattr(self.settings, "finder", None))
        return digest_of({"code": code, "settings": content, "finder": finder, "seed": self.seed})


def _checksum(path: str | None) -> str | None:
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


def training_of(config: RunConfig, model: str, seed: int) -> Training:
    """Return one training of the configuration."""
    return Training(config.results, model, config.models[model], seed)


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
