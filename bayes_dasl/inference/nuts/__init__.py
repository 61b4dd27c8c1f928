"""The No-U-Turn sampler."""

from .sampler import NUTS as NUTS
