"""Training the MAISI networks: latents of images, then autoencoder, diffusion U-Net and ControlNet, from scratch or fine-tuned.

Formats, losses and settings are those of NVIDIA NV-Generate-CTMR (https://github.com/NVIDIA-Medtech/NV-Generate-CTMR,
Apache-2.0); networks and schedulers are MONAI's.
"""
