"""All that a run can be told.

The JSON Schemas in ``workflow/schemas`` are generated from here; a test keeps the two in step.
"""

from vasculome.config.run import (
    BeamformConfig,
    ClutterConfig,
    ComputeConfig,
    KalmanConfig,
    LightConfig,
    LocalizeConfig,
    MicroscopyConfig,
    NormalizeConfig,
    PairsConfig,
    PositionsConfig,
    RunConfig,
    SegmentConfig,
    SkeletonConfig,
    StorageConfig,
    TrackConfig,
    UlmMapsConfig,
    UltrasoundConfig,
    VesselMapsConfig,
    parse_config,
)
from vasculome.config.samples import MICROSCOPY_FORMATS, Sample, parse_sample, parse_samples

__all__ = [
    "MICROSCOPY_FORMATS",
    "BeamformConfig",
    "ClutterConfig",
    "ComputeConfig",
    "KalmanConfig",
    "LightConfig",
    "LocalizeConfig",
    "MicroscopyConfig",
    "NormalizeConfig",
    "PairsConfig",
    "PositionsConfig",
    "RunConfig",
    "Sample",
    "SegmentConfig",
    "SkeletonConfig",
    "StorageConfig",
    "TrackConfig",
    "UlmMapsConfig",
    "UltrasoundConfig",
    "VesselMapsConfig",
    "parse_config",
    "parse_sample",
    "parse_samples",
]
