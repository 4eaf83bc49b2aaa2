"""Checkers of the exercises: each computes whether a learner's answer is right, and says so in one line.

They print `not answered yet`, `not yet: ...` with a hint, or `right: ...` with what follows from it.
"""

from kdlib.course.checks.aand import best_gate, hardest, optimism, own_settings
from kdlib.course.checks.dhkd import denoising_loss, flow_bounds, own_latent_maps, printed_means, single_coupling
from kdlib.course.checks.dnpkd import even_part, learning_choice, open_share, own_masks
from kdlib.course.checks.one_model import mean_and_pooled, one_threshold, own_student, routed, steps_and_epochs
from kdlib.course.checks.rd import embedding_shapes, hard_mining, opposite_losses
from kdlib.course.checks.snl import all_pairs, blind_spots, memory_limits, own_weights, soft_shares
from kdlib.course.checks.start import auroc_by_hand, harmless_rescalings, nearest_distance, own_maps, sampled_aupro
from kdlib.course.checks.stpm import distance_bounds, level_weights, own_threshold, rank_pixels

__all__ = [
    "all_pairs",
    "auroc_by_hand",
    "best_gate",
    "blind_spots",
    "denoising_loss",
    "distance_bounds",
    "embedding_shapes",
    "even_part",
    "flow_bounds",
    "hard_mining",
    "hardest",
    "harmless_rescalings",
    "learning_choice",
    "level_weights",
    "mean_and_pooled",
    "memory_limits",
    "nearest_distance",
    "one_threshold",
    "open_share",
    "opposite_losses",
    "optimism",
    "own_latent_maps",
    "own_maps",
    "own_masks",
    "own_settings",
    "own_student",
    "own_threshold",
    "own_weights",
    "printed_means",
    "rank_pixels",
    "routed",
    "sampled_aupro",
    "single_coupling",
    "soft_shares",
    "steps_and_epochs",
]
