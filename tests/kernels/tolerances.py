"""How near a kernel has to come to its float64 reference, which sees the same, already rounded, inputs."""

import torch

# Kernels compute in float32 whatever the input: a sum of some thousand terms and exponents of up to 60 lose about 1e-6.
VALUE = 4e-6
# Of the largest gradient; the slope of the margin, c sin m / sqrt(1 - c^2), multiplies float32's 6e-8 by up to 50 in these tests.
GRADIENT = 4e-6
# One rounding to the input's dtype on top: half a step of 10 or 7 bits; below 6e-5 a float16 has fixed steps of 6e-8.
# Triton's interpreter cuts a float32 off to bfloat16 instead of rounding it: a whole step.
BFLOAT16 = 2**-8 if torch.cuda.is_available() else 2**-7
ROUNDING = {torch.float32: (0.0, 0.0), torch.float16: (2**-11, 3e-8), torch.bfloat16: (BFLOAT16, 0.0)}


def assert_near(name, got, want, dtype=torch.float32):
    """got: of a kernel, whose input was of `dtype`. want: float64."""
    got, want = got.detach().double().cpu(), want.detach().double().cpu()
    relative, step = ROUNDING[dtype] if got.ndim else (0.0, 0.0)
    allowed = relative * want.abs() + step + (GRADIENT if got.ndim else VALUE) * want.abs().max()
    far = ~((got - want).abs() <= allowed)  # a NaN is far
    where = far.nonzero()[:5].tolist()
    assert not far.any(), f"{name}: {int(far.sum())} of {far.numel()} off, at {where}: {got[far][:5]}, not {want[far][:5]}"
