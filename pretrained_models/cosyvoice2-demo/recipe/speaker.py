"""The speaker vector: a fixed smooth map from a virtual speaker's five parameters to 192 numbers of constant norm."""

import torch

NUM_PARAMETERS = 5
DIMENSION = 192


def _frequencies() -> torch.Tensor:
    generator = torch.Generator().manual_seed(192)
    return torch.randn(NUM_PARAMETERS, DIMENSION // 2, generator=generator) * 1.2


FREQUENCIES = _frequencies()


def embed_parameters(parameters: torch.Tensor) -> torch.Tensor:
    """Random Fourier features. [B, 5] -> [B, 192]."""
    angle = parameters @ FREQUENCIES
    return torch.cat([angle.cos(), angle.sin()], 1)
