"""A daily catchment model for any river: `from case_studies.catchment import Catchment, daily`.

Priors, the names of the forcings and the snow are arguments, so another river needs no copy of the
equations. `case_studies/piscataquis.py` uses it for a river in Maine.
"""

from .equations import Catchment as Catchment, Snow as Snow, Soil as Soil, taken as taken
from .hybrid import Hybrid as Hybrid, with_network as with_network
from .layer import daily as daily, hamon as hamon, scattered as scattered, spun_up as spun_up
