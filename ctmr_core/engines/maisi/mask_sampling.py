"""Sampling label maps from ten anatomy sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.engines.maisi.anatomy_sizes import absent_labels, check_vector, target_tumor
from ctmr_core.engines.maisi.behaviour import behaviour
from ctmr_core.engines.maisi.decode import check_window, conv_splits, decode
from ctmr_core.engines.maisi.denoise import denoise
from ctmr_core.engines.maisi.mask_behaviour import mask_behaviour
from ctmr_core.engines.maisi.mask_postprocessing import N_CLASSES, labels_of_classes, postprocess
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.noise import Noise, Seed
from ctmr_core.engines.maisi.schedulers import make_sampler
from ctmr_core.errors import EngineError

MASK_SPACING = (1.5, 1.5, 1.5)
"""mm per voxel of the label maps the released networks draw (256 x 256 x 256 voxels)."""
MASK_STEPS = 1000
SMALLEST_LESION_VOXELS = 4
"""A lesion of fewer voxels of 1.5 mm counts as missing: no image shows it."""
_SLAB = 16  # planes along x whose classes are looked up at once
_MASK_SCHEDULER = "mask_generation_noise_scheduler"


@torch.inference_mode()
def sample_mask(
    models: MaisiModels,
    anatomy_sizes: Sequence[float] | np.ndarray,
    *,
    steps: int = MASK_STEPS,
    seed: Seed = 0,
    latent_shape: Sequence[int] | None = None,
    decode_window: Sequence[int] = (48, 48, 48),
    decode_overlap: float = 0.6666,
    attempts: int = 3,
    required: Iterable[int] = (),
    compat: bool = True,
    decoder: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> np.ndarray:
    """A label map of nobody in particular: uint8 [x, y, z], ids of the maisi vocabulary, axes RAS+, voxels of 1.5 mm.

    anatomy_sizes: ten sizes in the order of ``anatomy_sizes.SIZE_SLOTS``, 0-1 or -1 for absent (``condition_vector``
    completes a partial wish). steps: DDPM steps. seed: integer or generator. latent_shape: (channels, x, y, z), default
    of the configuration (4, 64, 64, 64), four voxels per latent voxel and axis. decode_window: latent voxels.
    attempts, required: in the fixed mode, how many label maps may be drawn until one shows the tumour that was asked for
    and every id of ``required``. compat: as the reference (one attempt; see ``mask_behaviour.MaskBehaviour``).
    decoder: decodes in place of the window given: latent divided by its scale -> logits [1,125,X,Y,Z].

    Raises ``EngineError`` for impossible requests and where no attempt shows what was asked for.
    """
    vector = check_vector(anatomy_sizes)
    target = target_tumor(vector)
    shape = _latent_shape(models, latent_shape)
    check_window(decode_window, decode_overlap)
    rules = mask_behaviour(compat)
    if attempts < 1:
        raise EngineError("impossible number of attempts", found=attempts, allowed="1 or more")
    wanted = [label for label in (*required, target) if label is not None]

    def decoded(latent: torch.Tensor) -> torch.Tensor:
        splits = conv_splits(models.config["mask_generation_autoencoder_def"], models.device, compat=compat)
        return decode(
            models.mask_autoencoder,
            latent,
            decode_window,
            decode_overlap,
            models.autocast(),
            splits=splits,
            stitch_on_cpu=True,
        )

    missing: list[int] = []
    for attempt in range(1 if rules.unverified else attempts):
        latent = _sample_latent(models, vector, shape, steps, _seed_of(seed, attempt), compat=compat)
        labels = labels_of_classes(classes_of_logits((decoder or decoded)(latent.div_(models.mask_scale_factor))))
        try:
            mask = postprocess(labels, target, absent=absent_labels(vector), compat=compat)
        except EngineError:
            if attempt + 1 == attempts:
                raise
            continue
        missing = [] if rules.unverified else missing_labels(mask, wanted)
        if not missing:
            return mask
    raise EngineError(
        f"none of {attempts} label maps shows what was asked for",
        found="missing " + ", ".join(name_of(label) for label in missing),
        fix="use more sampling steps, another size or seed, or a label map from the bank",
    )


def missing_labels(mask: np.ndarray, wanted: Iterable[int]) -> list[int]:
    """Which of the ``wanted`` ids a uint8 label map lacks; lesions need at least 4 voxels."""
    counts = np.zeros(256, np.int64)
    for plane in mask:
        counts += np.bincount(plane.ravel(), minlength=256)
    lesions = set(load_vocabulary("maisi").ids("lesion"))
    return [label for label in dict.fromkeys(wanted) if counts[label] < (SMALLEST_LESION_VOXELS if label in lesions else 1)]


def name_of(label: int) -> str:
    """Name of an id of the maisi vocabulary, for messages."""
    known = load_vocabulary("maisi").by_id
    return known[label].name if label in known else str(label)


def classes_of_logits(logits: torch.Tensor) -> np.ndarray:
    """The likeliest class at every voxel, uint8 [x, y, z], of logits [1,125,x,y,z]; the first one of equals."""
    if logits.ndim != 5 or logits.shape[0] != 1 or logits.shape[1] != N_CLASSES:
        raise EngineError("not the output of a mask autoencoder", found=tuple(logits.shape), allowed=f"[1, {N_CLASSES}, x, y, z]")
    classes = np.empty(tuple(logits.shape[2:]), np.uint8)
    for start in range(0, classes.shape[0], _SLAB):
        slab = logits[0, :, start : start + _SLAB]
        classes[start : start + _SLAB] = slab.argmax(dim=0).to(torch.uint8).cpu().numpy()
    return classes


def _seed_of(seed: Seed, attempt: int) -> Seed:
    """The first attempt uses the seed itself; later ones use seeds of their own, or what follows in the generator."""
    if attempt and isinstance(seed, (int, np.integer)):
        return np.random.default_rng([int(seed), attempt])
    return seed


def _latent_shape(models: MaisiModels, latent_shape: Sequence[int] | None) -> tuple[int, int, int, int]:
    shape = tuple(int(n) for n in (latent_shape or models.config["mask_generation_latent_shape"]))
    multiple = 2 ** (len(models.config["mask_generation_diffusion_def"]["channels"]) - 1)
    if len(shape) != 4 or any(n < multiple or n % multiple for n in shape[1:]):
        raise EngineError(
            "impossible latent of a label map", found=shape, allowed=f"(channels, x, y, z), each axis a multiple of {multiple}"
        )
    channels = int(models.config["mask_generation_diffusion_def"]["in_channels"])
    if shape[0] != channels:
        raise EngineError("impossible latent of a label map", found=shape, allowed=f"{channels} channels")
    return (shape[0], shape[1], shape[2], shape[3])


def _sample_latent(
    models: MaisiModels, vector: np.ndarray, shape: tuple[int, int, int, int], steps: int, seed: Seed, *, compat: bool
) -> torch.Tensor:
    """Latent [1,4,x,y,z] on the models' device, by DDPM (of rflow variants too)."""
    switches, rules = behaviour(compat), mask_behaviour(compat)
    noise = Noise(seed, models.device, switches)
    latent = noise.initial((1, *shape), on_device=False)
    sizes = torch.tensor(vector, dtype=torch.float32)[None, None]
    if rules.half_noise:
        latent, sizes = latent.half(), sizes.half()
        if not models.half:
            latent, sizes = latent.float(), sizes.float()
    context = sizes.to(models.device)
    network = models.mask_diffusion

    def predict(latent: torch.Tensor, timestep: float) -> torch.Tensor:
        times = torch.full((1,), timestep, device=latent.device)
        with models.autocast():
            output: torch.Tensor = network(latent, timesteps=times, context=context)
        return output

    sampler = make_sampler(models.scheduler(_MASK_SCHEDULER), steps, shape[1:], switches)
    return denoise(predict, sampler, latent, noise.of_steps, models.device)
