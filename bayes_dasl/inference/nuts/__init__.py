"""The No-U-Turn sampler."""

from .nuts import NUTS as NUTS
