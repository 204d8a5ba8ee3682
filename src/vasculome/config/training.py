"""What the trainings of all networks have."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vasculome.config.settings import NotNegative, PositiveFloat, PositiveInt, Settings

Count = Annotated[int, Field(ge=0)]


class TrainingConfig(Settings):
    """How long, how fast, and where."""

    seeds: tuple[Count, ...] = Field(
        (0,), min_length=1, description="Of the first weights: one training each."
    )
    steps: PositiveInt = Field(20000, description="Batches in all.")
    learning_rate: PositiveFloat = Field(1e-3, description="Of Adam, at its highest.")
    warmup: Count = Field(0, description="Steps in which the learning rate rises to it.")
    validate_every: PositiveInt = Field(500, description="Steps from one validation to the next.")
    checkpoint_every_s: NotNegative = Field(
        120.0, description="Most seconds of work that are lost if the machine dies."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where torch computes; auto: on a GPU if there is one."
    )
    threads: PositiveInt = Field(2, description="Processor threads of torch.")
    memory_gb: PositiveFloat = Field(
        4.0,
        description="Memory that the job asks for beside that of your own volumes, more at each "
        "attempt.",
    )

    @model_validator(mode="after")
    def _warmup_and_seeds(self) -> Self:
        if self.warmup >= self.steps:
            raise ValueError(f"warmup at step {self.warmup} is beyond the {self.steps} steps")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must differ")
        return self
