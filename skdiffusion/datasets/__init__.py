"""Series with gaps, shipped or downloaded, and a function that makes gaps."""

from skdiffusion.datasets._ampute import ampute
from skdiffusion.datasets._beijing import fetch_beijing_air_quality
from skdiffusion.datasets._nyc_weather import load_nyc_weather
from skdiffusion.datasets._physionet2012 import fetch_physionet2012

__all__ = [
    "ampute",
    "fetch_beijing_air_quality",
    "fetch_physionet2012",
    "load_nyc_weather",
]
