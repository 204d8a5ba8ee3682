"""The networks to train: on what, how long, how fast; one entry of ``models`` a network."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from vasculome.config.segment_models import StudentConfig, TeacherConfig
from vasculome.config.settings import Fraction, NotNegative, PositiveFloat, PositiveInt
from vasculome.config.training import Count, TrainingConfig

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class MovieTrainingConfig(TrainingConfig):
    """What trainings on simulated movies of bubbles have."""

    scene: Literal["paper_2d", "paper_3d", "broad_2d", "broad_3d"] = Field(
        "broad_2d",
        description="Simulated movies: as in the paper on sparse Deep-stULM, or as broad as "
        "acquisitions differ.",
    )
    frames: PositiveInt | None = Field(None, description="Of a movie; null: as the scene has it.")
    patch_px: PositiveInt | None = Field(
        None, description="Pixels of a movie along each axis; null: as the scene has it."
    )
    bubbles: tuple[PositiveFloat, PositiveFloat] | None = Field(
        None, description="Fewest and most bubbles in the field; null: as the scene has it."
    )
    movie_seed: Count = Field(0, description="Of the movies, the same for all seeds.")
    batch_size: PositiveInt = Field(4, description="Movies a step.")
    drops: tuple[PositiveInt, ...] = Field(
        (),
        description="Steps at which it falls to a tenth; empty: it falls as a cosine to a "
        "hundredth.",
    )
    restart: tuple[PositiveInt, PositiveFloat] | None = Field(
        None,
        description="Step, and learning rate that it begins again with; drops before do not count "
        "any more.",
    )
    validation_movies: PositiveInt = Field(16, description="Movies that the score is taken on.")
    movie_threads: PositiveInt = Field(
        1, description="Threads that simulate movies meanwhile; more where a GPU waits for them."
    )

    @model_validator(mode="after")
    def _schedule_fits_its_steps(self) -> Self:
        if list(self.drops) != sorted(set(self.drops)):
            raise ValueError("drops must rise")
        named = [("drops", drop) for drop in self.drops]
        named += [("restart", self.restart[0])] if self.restart else []
        for name, step in named:
            if step >= self.steps:
                raise ValueError(f"{name} at step {step} is beyond the {self.steps} steps")
        if self.bubbles is not None and self.bubbles[0] > self.bubbles[1]:
            raise ValueError("bubbles must not fall")
        return self

    @property
    def n_dims(self) -> Literal[2, 3]:
        """Spatial axes."""
        return 2 if self.scene.endswith("2d") else 3


class StulmConfig(MovieTrainingConfig):
    """Deep-stULM, dense or sparse: vessels that bubbles went through, on a grid 8 times finer."""

    network: Literal["stulm"]
    engine: Literal["dense", "vasculome", "minkowski"] = Field(
        "vasculome", description="dense: torch; others: sparse."
    )
    sparsify: Literal["threshold", "top_k", "cnn", "none"] = Field(
        "threshold",
        description="Pixels that the network is given: |c|² above threshold, the top_k strongest "
        "of a movie, those that another network finds bubbles in, or all.",
    )
    threshold: NotNegative = Field(0.1, description="Of |c|².")
    top_k: PositiveInt = Field(20000, description="Pixels of a movie.")
    finder: str | None = Field(
        None,
        description="sparsify cnn: weights (.safetensors) of a site_finder trained before.",
    )
    cnn: Fraction = Field(0.5, description="Least probability of a bubble in a pixel.")
    intermediate_loss: bool = Field(False, description="Whether coarser levels learn too.")
    pruning: bool = Field(
        False, description="Whether what they find empty is left out of the finer ones."
    )
    keep_above: Fraction = Field(0.5, description="pruning: probability from which pixels stay.")
    cascade_steps: Count = Field(
        0, description="Steps that each level is learnt before the next joins; 0: all at once."
    )
    dilated_steps: Count = Field(0, description="Steps in which the paths to be found are wider.")
    dilation_px: PositiveInt = Field(2, description="By how many fine pixels all round.")
    repeat_after: PositiveInt | None = Field(
        None, description="Movies, after which they come again; null: never."
    )

    @model_validator(mode="after")
    def _options_fit_together(self) -> Self:
        if self.pruning and self.engine == "dense":
            raise ValueError("pruning is for sparse networks: engine must not be dense")
        if self.pruning and not self.intermediate_loss:
            raise ValueError("pruning needs intermediate_loss: true")
        if self.cascade_steps and not self.intermediate_loss:
            raise ValueError("cascade_steps needs intermediate_loss: true")
        if self.dilated_steps > self.steps:
            raise ValueError(f"dilated_steps is beyond the {self.steps} steps")
        if (self.sparsify == "cnn") != (self.finder is not None):
            raise ValueError("finder is needed with sparsify: cnn, and only there")
        if self.engine != "dense" and self.sparsify == "none":
            raise ValueError("sparsify none is for the dense network")
        if self.engine == "minkowski" and self.device != "cpu":
            raise ValueError("engine minkowski is built for the processor: device must be cpu")
        return self


class BubbleNetConfig(MovieTrainingConfig):
    """A sparse network that keeps every bubble: its place, its time, and how sure it is."""

    network: Literal["bubble_net"]
    channels: tuple[PositiveInt, ...] = Field(
        (16, 32, 48), min_length=1, description="Of each level; each halves pixels and frames."
    )
    threshold: NotNegative = Field(0.2, description="Of |c|²: pixels above are given to it.")


class SiteFinderConfig(MovieTrainingConfig):
    """A small dense network that finds the pixels with bubbles, for sparsify: cnn."""

    network: Literal["site_finder"]
    channels: PositiveInt = Field(8, description="Of every layer.")
    depth: PositiveInt = Field(3, description="Convolutions at half the frames.")
    around_px: Count = Field(
        1, description="Pixels around that of a bubble which are to be found too."
    )


ModelConfig = Annotated[
    StulmConfig | BubbleNetConfig | SiteFinderConfig | StudentConfig | TeacherConfig,
    Field(discriminator="network"),
]
