"""Checkers of the exercises: each computes whether a learner's answer is right, and says so in one line.

They print `not answered yet`, `not yet: ...` with a hint, or `right: ...` with what follows from it.
"""

from kdlib.course.checks.aand import best_gate, hardest, optimism, own_settings
from kdlib.course.checks.dhkd import denoising_loss, flow_bounds, own_latent_maps, printed_means, single_coupling
from kdlib.course.checks.dnpkd import even_part, open_share, own_masks
from kdlib.course.checks.efficientad import hard_loss, own_mix, patch_sizes, quantile_map
from kdlib.course.checks.fabric import fair_attention, one_kernel, own_fabric_student, undisturbed_guesses
from kdlib.course.checks.memory import best_slots, memory_numbers, own_memory, saved_memory
from kdlib.course.checks.one_model import mean_and_pooled, one_threshold, own_student, routed
from kdlib.course.checks.rd import hard_mining, opposite_losses
from kdlib.course.checks.rdpp import accumulated_steps, own_defects, pushed_apart, sorted_transport
from kdlib.course.checks.snl import all_pairs, blind_spots, own_weights, soft_shares
from kdlib.course.checks.start import auroc_by_hand, harmless_rescalings, nearest_distance, own_maps, sampled_aupro
from kdlib.course.checks.stpm import level_weights, own_threshold, rank_pixels
from kdlib.course.checks.textures import any_shape_gains, blur_of_each, own_restorer, texture_numbers

__all__ = [
    "accumulated_steps",
    "all_pairs",
    "any_shape_gains",
    "auroc_by_hand",
    "best_gate",
    "best_slots",
    "blind_spots",
    "blur_of_each",
    "denoising_loss",
    "even_part",
    "fair_attention",
    "flow_bounds",
    "hard_loss",
    "hard_mining",
    "hardest",
    "harmless_rescalings",
    "level_weights",
    "mean_and_pooled",
    "memory_numbers",
    "nearest_distance",
    "one_kernel",
    "one_threshold",
    "open_share",
    "opposite_losses",
    "optimism",
    "own_defects",
    "own_fabric_student",
    "own_latent_maps",
    "own_maps",
    "own_masks",
    "own_memory",
    "own_mix",
    "own_restorer",
    "own_settings",
    "own_student",
    "own_threshold",
    "own_weights",
    "patch_sizes",
    "printed_means",
    "pushed_apart",
    "quantile_map",
    "rank_pixels",
    "routed",
    "sampled_aupro",
    "saved_memory",
    "single_coupling",
    "soft_shares",
    "sorted_transport",
    "texture_numbers",
    "undisturbed_guesses",
]
