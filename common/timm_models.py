"""`import common.timm_models` registers the networks with timm, as `networks.timm_models` does."""

from common.networks.timm_models import *  # noqa: F403
