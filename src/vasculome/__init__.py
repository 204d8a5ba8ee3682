"""vasculome: from raw terabyte acquisitions of a brain's vessels to whole-brain maps."""

from importlib.metadata import version

__version__ = version("vasculome")
