"""All that a run can be told.

The JSON Schemas in ``workflow/schemas`` are generated from here; a test keeps the two in step.
"""

from vasculome.config.localize import LocalizeConfig, NetworkConfig
from vasculome.config.models import (
    BubbleNetConfig,
    ModelConfig,
    SiteFinderConfig,
    StulmConfig,
    TrainingConfig,
)
from vasculome.config.per_sample import config_of
from vasculome.config.point_spread import ProbeConfig, PsfConfig
from vasculome.config.run import (
    BeamformConfig,
    ClutterConfig,
    ComputeConfig,
    KalmanConfig,
    MicroscopyConfig,
    NormalizeConfig,
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
from vasculome.config.stitching import LightConfig, PairsConfig, PositionsConfig
from vasculome.config.superresolve import SuperresolveConfig

__all__ = [
    "MICROSCOPY_FORMATS",
    "BeamformConfig",
    "BubbleNetConfig",
    "ClutterConfig",
    "ComputeConfig",
    "KalmanConfig",
    "LightConfig",
    "LocalizeConfig",
    "MicroscopyConfig",
    "ModelConfig",
    "NetworkConfig",
    "NormalizeConfig",
    "PairsConfig",
    "PositionsConfig",
    "ProbeConfig",
    "PsfConfig",
    "RunConfig",
    "Sample",
    "SegmentConfig",
    "SiteFinderConfig",
    "SkeletonConfig",
    "SliceStack",
    "StorageConfig",
    "StulmConfig",
    "SuperresolveConfig",
    "TrackConfig",
    "TrainingConfig",
    "UlmMapsConfig",
    "UltrasoundConfig",
    "VesselMapsConfig",
    "config_of",
    "differing",
    "parse_config",
    "parse_sample",
    "parse_samples",
    "stacks_of",
]
