"""The problems of the table, in its order."""

from .chaos import lorenz
from .climate import climate, implicit_law
from .dynamics import kalman, lotka_volterra, lynx_hare, oscillator, two_functions
from .fields import channel, heat, pde_closure
from .gases import argon, wide
from .untuned import reactor

PROBLEMS = {
    problem.__name__: problem
    for problem in (
        *(argon, climate, heat, channel, lynx_hare, lotka_volterra, oscillator, lorenz),
        *(pde_closure, implicit_law, kalman, two_functions, wide, reactor),
    )
}
