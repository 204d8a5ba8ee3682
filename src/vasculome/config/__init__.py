"""All that a run can be told.

The JSON Schemas in ``workflow/schemas`` are generated from here; a test keeps the two in step.
"""

from vasculome.config.localize import LocalizeConfig, NetworkConfig
from vasculome.config.models import (
    BubbleNetConfig,
    ModelConfig,
    MovieTrainingConfig,
    SiteFinderConfig,
    StulmConfig,
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
    SkeletonConfig,
    StorageConfig,
    TrackConfig,
    UlmMapsConfig,
    UltrasoundConfig,
    VesselMapsConfig,
    parse_config,
)
from vasculome.config.samples import MICROSCOPY_FORMATS, Sample, parse_sample, parse_samples
from vasculome.config.segment import SegmentConfig, SegmentNetworkConfig
from vasculome.config.segment_models import PatchTrainingConfig, StudentConfig, TeacherConfig
from vasculome.config.slices import SliceStack, differing, stacks_of
from vasculome.config.stitching import LightConfig, PairsConfig, PositionsConfig
from vasculome.config.superresolve import SuperresolveConfig
from vasculome.config.training import TrainingConfig
from vasculome.config.volumes import TrainingVolume, parse_volumes

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
    "MovieTrainingConfig",
    "NetworkConfig",
    "NormalizeConfig",
    "PairsConfig",
    "PatchTrainingConfig",
    "PositionsConfig",
    "ProbeConfig",
    "PsfConfig",
    "RunConfig",
    "Sample",
    "SegmentConfig",
    "SegmentNetworkConfig",
    "SiteFinderConfig",
    "SkeletonConfig",
    "SliceStack",
    "StorageConfig",
    "StudentConfig",
    "StulmConfig",
    "SuperresolveConfig",
    "TeacherConfig",
    "TrackConfig",
    "TrainingConfig",
    "TrainingVolume",
    "UlmMapsConfig",
    "UltrasoundConfig",
    "VesselMapsConfig",
    "config_of",
    "differing",
    "parse_config",
    "parse_sample",
    "parse_samples",
    "parse_volumes",
    "stacks_of",
]
