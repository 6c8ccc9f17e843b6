"""Every way in which ``compat=True`` differs from the repaired ("fixed") computation, in one place.

``COMPAT`` reproduces NVIDIA NV-Generate-CTMR number for number, defects included; ``FIXED`` repairs them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Behaviour:
    """One switch per difference; True is what the reference does.

    device_noise: image-only noise is drawn on the device, so a seed gives another image on another GPU model.
        Fixed: all noise is drawn on the CPU.
    half_noise: noise and latents of the mask-conditioned samplers are float16. Fixed: float32.
    half_conditioning: spacing is rounded to float16 before and after x 100 (0.781 mm becomes 0.780625 mm). Fixed: float32.
    half_timesteps: rectified-flow timesteps are float16. Fixed: float64.
    truncated_timesteps: the end of a rectified-flow step is cut to an integer, so that the steps add up to more than 1
        (about 1.007-1.010 for 30 steps). Fixed: they add up to 1.
    unit_stride_ddpm: a DDPM step always goes from t to t-1, also where fewer than 1000 steps are taken. Fixed: to the
        next timestep of the sequence (Nichol and Dhariwal 2021, respaced betas).
    paired_guidance: both halves of classifier-free guidance run as one batch of two, also when they are equal.
        Fixed: one after another (half the memory), and once where they are equal.
    truncated_intensities: int16 images are cut towards zero, MR beyond 32767 wraps. Fixed: rounded, clipped.
    partial_tumour_removal: bone lesions (128) and kidney masses (129) stay in the unconditional mask of guidance, and
        the vote on the lobe of a lung tumour counts lobes along the volume's border. Fixed: all are removed, each by
        the vote of what surrounds it.
    strict_regions: a mask without region labels is an error for region-conditioned networks. Fixed: vertebrae, heart,
        pelvic organs and sacrum help out.
    """

    device_noise: bool
    half_noise: bool
    half_conditioning: bool
    half_timesteps: bool
    truncated_timesteps: bool
    unit_stride_ddpm: bool
    paired_guidance: bool
    truncated_intensities: bool
    partial_tumour_removal: bool
    strict_regions: bool


COMPAT = Behaviour(
    device_noise=True,
    half_noise=True,
    half_conditioning=True,
    half_timesteps=True,
    truncated_timesteps=True,
    unit_stride_ddpm=True,
    paired_guidance=True,
    truncated_intensities=True,
    partial_tumour_removal=True,
    strict_regions=True,
)
FIXED = Behaviour(
    device_noise=False,
    half_noise=False,
    half_conditioning=False,
    half_timesteps=False,
    truncated_timesteps=False,
    unit_stride_ddpm=False,
    paired_guidance=False,
    truncated_intensities=False,
    partial_tumour_removal=False,
    strict_regions=False,
)


def behaviour(compat: bool) -> Behaviour:
    """The switches of ``compat=True`` or of the fixed mode."""
    return COMPAT if compat else FIXED
