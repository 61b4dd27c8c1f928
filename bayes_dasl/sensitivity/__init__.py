"""Sensitivity indices, Fisher information, profile likelihoods, entropy and shrinkage."""

from .._listing import listed as _listed
from .entropy import decompose_entropy as decompose_entropy
from .indices import sensitivity as sensitivity
from .information import Information as Information, fisher_information as fisher_information
from .profiles import profile_likelihood as profile_likelihood
from .shrinkage_of_members import shrinkage as shrinkage

__dir__ = _listed(__name__)
