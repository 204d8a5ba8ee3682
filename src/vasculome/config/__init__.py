"""All that a run can be told.

The JSON Schemas in ``workflow/schemas`` are generated from here; a test keeps the two in step.
"""

from vasculome.config.point_spread import ProbeConfig, PsfConfig
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
from vasculome.config.slices import SliceStack, differing, stacks_of

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
    "ProbeConfig",
    "PsfConfig",
    "RunConfig",
    "Sample",
    "SegmentConfig",
    "SkeletonConfig",
    "SliceStack",
    "StorageConfig",
    "TrackConfig",
    "UlmMapsConfig",
    "UltrasoundConfig",
    "VesselMapsConfig",
    "differing",
    "parse_config",
    "parse_sample",
    "parse_samples",
    "stacks_of",
]
