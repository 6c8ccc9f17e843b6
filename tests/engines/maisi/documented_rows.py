"""Which tests hold the rows of the two tables of docs/maisi.md: capabilities (F) and defects of the reference (B)."""

from __future__ import annotations

_MAISI = "engines/maisi/test_"
_CLI = "pipelines/test_cli_models.py::"
_TRAIN = "learning/maisi/test_"
HERE = f"{_MAISI}documented_rows.py::"

ROWS: dict[str, tuple[str, ...]] = {
    "F1": (
        f"{_CLI}test_a_sampled_image_is_where_its_header_says",
        f"{_MAISI}golden_images.py::test_image_only_is_what_the_reference_makes",
    ),
    "F2": (
        f"{_MAISI}paired.py::test_a_pair_from_sizes",
        "pipelines/test_maisi_factory.py::test_a_recipe_asks_for_organs_of_drawn_sizes",
    ),
    "F3": (f"{_MAISI}paired.py::test_a_pair_from_the_bank", f"{_CLI}test_a_pair_of_the_bank_is_written_with_its_whole_label_map"),
    "F4": (f"{_CLI}test_a_label_map_is_drawn_of_organ_sizes", f"{_MAISI}mask_sampling.py::test_golden_mask"),
    "F5": (
        f"{_CLI}test_an_image_of_a_mask_comes_with_the_mask_on_its_grid",
        f"{_MAISI}golden_images.py::test_image_from_mask_is_what_the_reference_makes",
    ),
    "F6": ("pipelines/test_maisi_factory.py::test_paired_ct_and_unlabelled_mr_are_made_checked_and_committed",),
    "F7": (f"{_MAISI}sampling.py::test_fixed_guidance_one_after_another_is_that_of_a_batch",),
    "F8": (
        f"{_MAISI}conditioning.py::test_lesions_become_their_host",
        f"{_MAISI}golden_images.py::test_image_from_mask_is_what_the_reference_makes",
    ),
    "F9": (f"{_MAISI}decode.py::test_windows_cover_everything_with_weights_that_add_up",),
    "F10": (f"{_MAISI}decode.py::test_splits_never_lose_rows_nor_change_values",),
    "F11": (f"{_MAISI}compiling.py::test_a_compiler_that_is_not_there_is_refused_by_name",),
    "F12": (
        f"{_CLI}test_a_pair_without_the_hu_of_its_organs_is_drawn_again_and_marked",
        f"{HERE}test_all_five_lobes_are_checked",
    ),
    "F13": (
        f"{_MAISI}paired.py::test_refused_pairs_are_drawn_again",
        f"{_MAISI}engine.py::test_the_factory_makes_labelled_ct_and_rejects_noise_with_its_reasons",
    ),
    "F14": (
        f"{_MAISI}mask_bank.py::test_exact_matches_have_structures_regions_and_no_other_tumours",
        f"{_MAISI}mask_bank.py::test_one_member_is_read_at_a_time",
    ),
    "F15": (
        f"{_MAISI}tumor_augmentation.py::test_a_tumour_moves_within_its_host",
        f"{_MAISI}tumor_augmentation.py::test_the_parts_of_a_brain_tumour_move_as_one_within_the_brain",
        f"{_MAISI}tumor_augmentation.py::test_healthy_bodies_are_zoomed_by_up_to_one_percent",
    ),
    "F16": (f"{_MAISI}conditioning.py::test_lesions_become_their_host",),
    "F17": ("anatomy/templates/test_template_envelope.py::test_the_table_is_left_out_and_the_skin_is_kept",),
    "F18": ("anatomy/test_mapping.py::test_mapping_is_the_table_applied_to_every_voxel",),
    "F19": (f"{_MAISI}decode.py::test_paired_images_have_the_floor_outside_of_the_mask",),
    "F20": (
        f"{_TRAIN}autoencoder.py::test_a_trained_autoencoder_is_taken_by_the_engine",
        f"{_TRAIN}autoencoder.py::test_both_players_minimize_their_own_loss",
    ),
    "F21": (
        f"{_TRAIN}latents.py::test_latents_are_the_mean_of_what_the_reference_encodes",
        f"{_TRAIN}latents.py::test_a_second_run_keeps_what_is_there_and_makes_what_changed",
    ),
    "F22": (f"{_TRAIN}latents.py::test_sidecar_and_index_say_what_nvidias_scripts_read",),
    "F23": (
        f"{_TRAIN}training.py::test_a_fine_tuned_diffusion_network_is_taken_by_the_engine",
        f"{_TRAIN}training.py::test_a_resumed_training_is_the_uninterrupted_one",
    ),
    "F24": (
        f"{_TRAIN}training.py::test_a_fine_tuned_controlnet_is_taken_by_the_engine",
        f"{_TRAIN}losses.py::test_the_contrast_is_that_of_the_formula_for_each_sample",
    ),
    "F25": (
        "assessment/test_slices.py::test_planes_are_those_of_the_reference",
        "assessment/test_frechet.py::test_distance_is_that_of_monai_and_of_the_matrix_root",
    ),
    "F26": ("report/test_page.py::test_a_montage_has_a_row_for_each_case",),
    "F27": (f"{_MAISI}hub.py::test_the_hub_is_asked_for_the_pinned_commit_and_its_files_are_verified",),
    "F28": ("exchange/test_nifti.py::test_nibabel_and_simpleitk_agree_with_the_dataset",),
    "F29": (f"{_MAISI}memory.py::test_devices_of_common_sizes_get_windows_that_fit_them",),
    "F30": (f"{_CLI}test_every_command_has_help_with_an_example",),
    "F31": ("pipelines/test_cli_run.py::test_demo_makes_a_dataset_that_verifies_reports_and_notices_one_changed_byte",),
    "F32": (f"{HERE}test_every_row_names_tests_that_are_there",),
    "B1": (f"{_CLI}test_a_pair_of_the_bank_is_written_with_its_whole_label_map",),
    "B2": (
        f"{_CLI}test_a_pair_of_the_bank_is_written_with_its_whole_label_map",
        f"{_CLI}test_a_sampled_image_is_where_its_header_says",
    ),
    "B3": (f"{_MAISI}drawn_bodies.py::test_equal_bodies_are_equal_in_every_process_and_others_differ",),
    "B4": (f"{_MAISI}tumor_augmentation.py::test_equal_seeds_move_equally",),
    "B5": (f"{HERE}test_all_five_lobes_are_checked",),
    "B6": (
        f"{_MAISI}paired.py::test_refused_pairs_are_drawn_again",
        f"{_CLI}test_a_pair_without_the_hu_of_its_organs_is_drawn_again_and_marked",
    ),
    "B7": (f"{_MAISI}schedulers.py::test_compat_flow_timesteps_are_the_half_precision_table",),
    "B8": (
        f"{_MAISI}schedulers.py::test_fixed_flow_steps_add_up_to_one",
        f"{_MAISI}schedulers.py::test_compat_flow_steps_add_up_to_what_they_do_in_the_reference",
    ),
    "B9": (
        f"{_MAISI}mask_postprocessing.py::test_hepatic_vessels_are_kept_in_the_liver_only",
        f"{_MAISI}mask_postprocessing.py::test_small_hepatic_tumours_survive_the_closing_of_the_liver",
    ),
    "B10": (
        f"{_MAISI}anatomy_sizes.py::test_tumours_that_were_not_asked_for_are_absent",
        f"{_MAISI}anatomy_sizes.py::test_seeds_choose_among_the_near_vectors",
    ),
    "B11": (f"{_MAISI}weights.py::test_files_may_lie_in_the_root_itself_or_anywhere",),
    "B12": (f"{_MAISI}weights.py::test_mr_variants_have_no_controlnet",),
    "B13": (f"{HERE}test_rectified_flow_takes_30_steps_unless_told",),
    "B14": (f"{_MAISI}compiling.py::test_a_compiler_that_is_not_there_is_refused_by_name",),
    "B15": (
        f"{_MAISI}mask_bank.py::test_label_maps_on_another_grid_keep_their_middle_and_their_volume",
        f"{_TRAIN}losses.py::test_labels_of_any_dtype_are_taken_at_every_fourth_voxel",
    ),
    "B16": (f"{_TRAIN}training.py::test_two_ranks_train_together",),
    "B17": (f"{_TRAIN}training.py::test_the_latent_scale_is_kept_or_measured",),
    "B18": (f"{_TRAIN}latents.py::test_latents_are_the_mean_of_what_the_reference_encodes",),
    "B19": (f"{_MAISI}engine.py::test_a_case_is_the_same_whatever_the_number_of_threads_and_another_with_each_attempt",),
    "B20": (
        f"{_MAISI}sampling.py::test_the_same_seed_gives_the_same_image_and_another_one_does_not",
        f"{_CLI}test_an_image_of_a_mask_comes_with_the_mask_on_its_grid",
    ),
    "B21": (f"{_MAISI}conditioning.py::test_bone_lesions_and_kidney_masses_are_removed_when_fixed_only",),
    "B22": (f"{_MAISI}tumor_augmentation.py::test_bounded_tries_end_with_the_name_of_the_tumour",),
    "B23": (f"{HERE}test_numpy_2_is_required",),
    "B24": (f"{_TRAIN}commands.py::test_the_examples_are_valid",),
    "B25": (f"{HERE}test_guidance_is_as_shipped",),
    "B26": (
        f"{_MAISI}conditioning.py::test_documented_sizes_the_reference_rejects_are_accepted_when_fixed",
        f"{_MAISI}conditioning.py::test_requests_beyond_the_limits_are_refused",
    ),
    "B27": (f"{_MAISI}weights.py::test_missing_unexpected_and_misshapen_entries_are_refused_by_name",),
    "B28": (f"{_TRAIN}training.py::test_two_ranks_train_together",),
    "B29": (f"{_MAISI}sampling.py::test_a_mask_without_region_labels",),
    "B30": (
        f"{_MAISI}weights.py::test_files_are_read_only_when_needed_and_once",
        "pipelines/test_maisi_factory.py::test_paired_ct_and_unlabelled_mr_are_made_checked_and_committed",
    ),
    "B31": (f"{_MAISI}mask_sampling.py::test_unrequested_tumours_and_absent_organs_are_not_there",),
    "B32": (f"{HERE}test_the_pages_python_compiles_and_its_links_lead_somewhere",),
    "B33": (
        f"{_MAISI}decode.py::test_splits_never_lose_rows_nor_change_values",
        f"{_MAISI}sampling.py::test_impossible_requests_are_refused",
    ),
    "B34": (f"{HERE}test_numpy_2_is_required",),
    "B35": (f"{HERE}test_the_pages_python_compiles_and_its_links_lead_somewhere",),
}
