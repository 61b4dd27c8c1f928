"""Neural networks as parts of models, priors of their weights, and networks of other libraries."""

from .._listing import listed as _listed
from .from_flax_and_haiku import from_flax as from_flax, from_haiku as from_haiku
from .network import Network as Network
from .recurrent import Recurrent as Recurrent
from .weights import fan_in as fan_in, sparse as sparse

__dir__ = _listed(__name__)
