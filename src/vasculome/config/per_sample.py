"""What a row of the sample sheet says instead of the configuration."""

from __future__ import annotations

from pydantic import ValidationError

from vasculome.config.localize import LocalizeConfig
from vasculome.config.run import RunConfig
from vasculome.config.samples import Sample
from vasculome.config.settings import first_fault


def config_of(config: RunConfig, sample: Sample) -> RunConfig:
    """Return the configuration with the sample's own localizer, where its row names one.

    Raises
    ------
    UserError
        The other settings of ``ultrasound.localize`` do not go with it.
    """
    ultrasound = config.ultrasound
    if sample.localizer in (None, ultrasound.localize.localizer):
        return config
    settings = ultrasound.localize.model_dump() | {"localizer": sample.localizer}
    try:
        localize = LocalizeConfig.model_validate(settings)
    except ValidationError as error:
        where = f"config: ultrasound.localize, for sample {sample.sample}"
        raise first_fault(error, settings, where=where) from None
    own = ultrasound.model_copy(update={"localize": localize})
    return config.model_copy(update={"ultrasound": own})
