"""`pk` in the words for populations: the same posterior, in which the numbers of a subject are
centred as data say.

It is for ours alone: the peers' programs are those of `pk`, which are not centred.
"""

import dataclasses

from . import Case, pk


def case(rtol: float, atol: float) -> Case:
    model, data = pk.as_population(rtol, atol)
    levels = (("mean", "loc"), ("spread", "scale"))
    paths = {f"{kind}_{name}": f"{kind}.{path}" for name, path in levels for kind in pk.KINDS}
    parameters = paths | {kind: kind for kind in pk.KINDS} | {"scale": "noise.scale"}
    title = "Population pharmacokinetics, 12 subjects, as a population"
    return dataclasses.replace(
        pk.case(rtol, atol),
        name="pk_population",
        title=title,
        model=model,
        data=data,
        parameters=parameters,
    )
