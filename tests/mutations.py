"""Every test can fail: small faults, each with the test that must notice it.

`python -m tests.mutations [words]` plants each fault (those whose file or test contains one of the words) in a copy of
the package, runs its test there and demands that it fails.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

RETURNS, LOSSES, DISTRIBUTIONS = "yozh/returns.py", "yozh/losses.py", "yozh/distributions.py"
A, B, C = "tests/test_returns.py::", "tests/test_losses.py::", "tests/test_distributions.py::"

PRIORITISED, VALUES, BACKUPS, DQN = (
    "yozh/stores/prioritised.py", "yozh/agents/values.py", "yozh/agents/backups.py", "yozh/agents/dqn.py",
)  # fmt: skip
P, V, N, D = (
    "tests/test_prioritised.py::", "tests/test_values.py::", "tests/test_noisy.py::", "tests/test_dqn_parts.py::",
)  # fmt: skip

SEQUENCES, SAMPLING, HEADS = "yozh/agents/sequences.py", "yozh/agents/sampling.py", "yozh/agents/heads.py"
R, E, H = "tests/test_recurrent_dqn.py::", "tests/test_ensemble.py::", "tests/test_discounts.py::"

PQN, TABULAR = "yozh/agents/pqn.py", "yozh/tabular/"
Q, T, S = "tests/test_pqn.py::", "tests/test_tabular.py::", "tests/test_studies.py::"

FORESIGHT, EVALUATION, REPLAYED = "yozh/runners/foresight.py", "yozh/runners/evaluation.py", "yozh/runners/replayed.py"
F = "tests/test_diagnostics.py::"

MUTATIONS: list[tuple[str, str, str, str]] = [
    (RETURNS, "lam * (1.0 - last[1:])", "lam * (1.0 - last[:-1])", A + "test_segment_as_written_out"),
    (RETURNS, "lam * (1.0 - last[1:])", "lam * (1.0 - 0*last[1:])", A + "test_endless_reward_under_a_time_limit"),
    (RETURNS, "1.0 - last[:-1])", "1.0 - last[1:])", A + "test_endless_reward_under_a_time_limit"),
    (RETURNS, "x = ab[0] + ab[1] * x", "x = ab[0] - ab[1] * x", A + "test_discounted_return"),
    (RETURNS, "discount_t * value_t - value_tm1", "discount_t * value_t + value_tm1", A + "test_td_error"),
    (RETURNS, "discount_t * lambda_t, jnp.zeros_like(reward_t[0]))", "discount_t, jnp.zeros_like(reward_t[0]))",
     A + "test_reward_to_go"),
    (RETURNS, "discount_t * lambda_t, value_t[-1])", "discount_t * lambda_t, value_t[0])",
     A + "test_lambda_return_is_the_forward_view"),
    (RETURNS, "fori_loop(1, min(n", "fori_loop(0, min(n", A + "test_n_step_return"),
    (RETURNS, "[g[1:], value_t[-1:]]", "[g[1:], value_t[:1]]", A + "test_n_step_return"),
    (RETURNS, "_backward(delta, discount_t * lambda_t,", "_backward(delta, discount_t,", A + "test_gae"),
    (RETURNS, "rho = jnp.minimum(", "rho = jnp.maximum(", A + "test_vtrace_fixed_point"),
    (RETURNS, "jnp.minimum(ratio_tm1, c_clip)", "jnp.minimum(ratio_tm1, rho_clip)", A + "test_vtrace"),
    (RETURNS, "rho * discount_t * lambda_t * correction_t", "rho * discount_t * correction_t", A + "test_vtrace"),
    (RETURNS, "delta = rho * td_error", "delta = 1.0 * td_error",
     A + "test_vtrace_without_clips_is_the_importance_sampled_return"),
    (RETURNS, "return VTrace(value_tm1 +", "return VTrace(value_t +", A + "test_vtrace_on_policy_is_the_n_step_return"),
    (RETURNS, "[ratio_tm1[1:],", "[ratio_tm1[:-1],", A + "test_retrace"),
    (RETURNS, "td_error(reward_t, discount_t, q_tm1, value_t)", "td_error(reward_t, discount_t, value_t, value_t)",
     A + "test_retrace_fixed_point"),
    (RETURNS, "lam * (1.0 - last[1:])", "lam * (1.0 - 0*last[1:])", A + "test_vtrace_fixed_point"),
    (RETURNS, "lam * (1.0 - last[1:])", "lam * (1.0 - 0*last[1:])", A + "test_retrace_fixed_point"),
    (RETURNS, "lam * (1.0 - last[1:])", "lam * (1.0 - 0*last[1:])", A + "test_nothing_is_learnt_from_another_episode"),
    (RETURNS, "jnp.minimum(ratio_t, 1.0)", "jnp.minimum(ratio_t, 9.0)", A + "test_retrace"),
    (LOSSES, "jnp.maximum(jnp.sum(weight), 1.0)", "jnp.maximum(jnp.sum(weight), 0.0)", B + "test_weighted_mean"),
    (LOSSES, "values, 0.0), -1)", "values, 1.0), -1)", B + "test_select_and_its_gradient"),
    (LOSSES, "return -log_prob * advantage", "return log_prob * advantage", B + "test_policy_gradient"),
    (LOSSES, "-jnp.minimum(ratio * advantage", "-jnp.maximum(ratio * advantage", B + "test_ppo_clip"),
    (LOSSES, "1.0 - clip, 1.0 + clip", "1.0 + clip, 1.0 + clip",
     B + "test_ppo_clip_pulls_only_towards_the_old_policy"),
    (LOSSES, "jnp.expm1(log_ratio) - log_ratio", "jnp.expm1(log_ratio) + log_ratio",
     B + "test_kl_estimates_are_unbiased"),
    (LOSSES, "delta * (error - near)", "delta * (error + near)", B + "test_squared_and_huber"),
    (LOSSES, "jnp.maximum(squared(value", "jnp.minimum(squared(value", B + "test_clipped_value"),
    (LOSSES, "jnp.argmax(q_t_selector", "jnp.argmax(q_t_value", B + "test_q_targets"),
    (LOSSES, "discount_t * jnp.max(", "discount_t * jnp.min(", B + "test_q_targets"),
    (LOSSES, "(worth - support[0])", "(worth + support[0])", B + "test_project_categorical"),
    (LOSSES, "clip(where, 0.0, n - 1.0)", "clip(where, 0.0, n - 0.0)", B + "test_projection_keeps_mass_and_mean"),
    (LOSSES, "(error < 0)", "(error > 0)", B + "test_quantile_huber_finds_quantiles"),
    (LOSSES, "jnp.sum(jnp.mean(loss", "jnp.mean(jnp.mean(loss", B + "test_quantile_huber"),
    (DISTRIBUTIONS, "(logits.dtype).min)", "(logits.dtype).max)", C + "test_masked_equals_the_legal_choices_alone"),
    (DISTRIBUTIONS, "jnp.finfo(logits.dtype).min)", "-jnp.inf)",
     C + "test_masked_gradients_are_finite_and_zero_for_the_illegal"),
    (DISTRIBUTIONS, "return jax.nn.log_softmax(self.logits)",
     "return self.logits - jax.nn.logsumexp(self.logits, -1, keepdims=True)",
     C + "test_masked_without_a_legal_action_is_uniform"),
    (DISTRIBUTIONS, "jnp.argmax(reach > (draw", "jnp.argmax(reach < (draw",
     C + "test_finite_samples_come_as_often_as_they_should"),
    ("yozh/returns.py", "jnp.concatenate([jnp.ones_like(go_t[:1]), go_t[:-1]])", "jnp.ones_like(go_t)",
     "tests/test_returns.py::test_window_is_the_n_step_return_of_its_first_step"),
    ("yozh/stores/replay.py", "state.head - self.window - age", "state.head - age",
     "tests/test_stores.py::test_windows_are_consecutive_and_complete"),
    (DISTRIBUTIONS, "self._split(self.logits + noise)", "self._split(2 * self.logits + noise)",
     C + "test_finite_samples_come_as_often_as_they_should"),
    (DISTRIBUTIONS, "np.cumsum(self.ns)[:-1]", "np.cumsum(self.ns[::-1])[:-1]",
     C + "test_finite_log_prob_entropy_mode_kl"),
    (DISTRIBUTIONS, "sum(self.ns) == ", "sum(self.ns) != ", C + "test_factored_counts_its_logits"),
    (DISTRIBUTIONS, "jnp.where(action != 0", "jnp.where(action == 0", C + "test_finite_log_prob_entropy_mode_kl"),
    (DISTRIBUTIONS, "jnp.exp(zero) * (zero - other_zero)", "jnp.exp(zero) * (zero + other_zero)",
     C + "test_finite_log_prob_entropy_mode_kl"),
    (DISTRIBUTIONS, "0.5 * math.log(2 * math.pi * math.e)", "0.5 * math.log(3 * math.pi * math.e)",
     C + "test_normal_against_scipy"),
    (DISTRIBUTIONS, "jnp.exp(-2 * wider)", "jnp.exp(2 * wider)", C + "test_continuous_log_prob_entropy_kl"),
    (DISTRIBUTIONS, "u - jax.nn.softplus(-2.0 * u)", "u - jax.nn.softplus(-1.0 * u)",
     C + "test_continuous_log_prob_entropy_kl"),
    (DISTRIBUTIONS, "    return 2.0 * (math.log(2) - u - jax.nn.softplus(-2.0 * u))",
     "    return jnp.log(1.0 - jnp.square(jnp.tanh(u)))", C + "test_tanh_normal_far_out_stays_finite"),
    (DISTRIBUTIONS, "slope + jnp.log(0.5 *", "slope + jnp.log(1.0 *", C + "test_continuous_log_prob_entropy_kl"),
    (DISTRIBUTIONS, "0.5 * (low + high) + 0.5", "0.5 * (low - high) + 0.5",
     C + "test_tanh_normal_bounds_per_component"),
    (DISTRIBUTIONS, "-edge, edge)", "-1.0, 1.0)", C + "test_tanh_normal_far_out_stays_finite"),
    (DISTRIBUTIONS, "self.mean + jnp.exp(self.log_std) * jax", "self.mean + jnp.exp(2 * self.log_std) * jax",
     C + "test_continuous_samples_have_the_density"),
    (LOSSES, "jnp.sum(loss * chance", "jnp.mean(loss + 0 * chance", V + "test_lessons_are_least_for_the_target_itself"),
    (LOSSES, "- 1.0) + epsilon * x", "- 1.0)", V + "test_squash_and_back"),
    (LOSSES, "root = 2.0 * far", "root = far", V + "test_squash_and_back"),
    (PRIORITISED, " & ~ring.steps[0].last[learnt % moments].all(1)", " & True", P + "test_windows_that_begin_at_an_end_are_never_drawn"),
    (PRIORITISED, "(age <= ring.filled)", "(age <= moments)", P + "test_what_is_there_is_what_replay_has"),
    (PRIORITISED, "(age >= self.window)", "(age > 0)", P + "test_what_is_there_is_what_replay_has"),
    (PRIORITISED, "length + self.window, moments", "length, moments", P + "test_what_is_there_is_what_replay_has"),
    (PRIORITISED, "x**self.alpha", "x", P + "test_frequencies"),
    (PRIORITISED, "drawn.ravel(), state.largest", "drawn.ravel(), 1.0",
     P + "test_new_windows_have_the_largest_priority_so_far"),
    (PRIORITISED, "(windows * state", "(1.0 * state", P + "test_weights_make_the_mean_that_of_uniform_draws"),
    (PRIORITISED, "FLOOR)[first]", "FLOOR)", P + "test_one_window_twice_in_a_batch_takes_its_first_priority"),
    (PRIORITISED, "changed * STALE >= ", "changed * STALE < 0 * ", P + "test_stale_ranks_are_looked_up_anew"),
    ("yozh/stores/sums.py", "reach - block", "reach", P + "test_sums_find_numbers_as_often_as_they_are_large"),
    ("yozh/stores/sums.py", "[place].sum(-1)", "[place].max(-1)", P + "test_sums_find_numbers_as_often_as_they_are_large"),
    ("yozh/stores/ranks.py", "0.5 * (self.counts + 1)", "1.0 * (self.counts + 1)", P + "test_ranks_are_exact_and_ties_share_their_mean"),
    ("yozh/stores/ranks.py", "add(-(once", "add(0 * (once", P + "test_ranks_are_exact_and_ties_share_their_mean"),
    (SAMPLING, "weight / jnp.max(weight)", "weight", D + "test_importance_weights"),
    (VALUES, "loss - entropy", "loss", V + "test_lessons_are_least_for_the_target_itself"),
    (VALUES, "(target.worth < self.low) | ", "", V + "test_lessons_are_least_for_the_target_itself"),
    (VALUES, "target.mean()[..., None]", "target.worth[..., :1]", V + "test_lessons_are_least_for_the_target_itself"),
    (VALUES, "discount[..., None] * self.worth", "self.worth", D + "test_values_come_out_true"),
    ("yozh/agents/risks.py", "level / self.alpha", "level * self.alpha", V + "test_risks"),
    ("yozh/agents/risks.py", "(level) - self.eta", "(level) + self.eta", V + "test_risks"),
    ("yozh/agents/risks.py", "mean - self.k", "mean + self.k", V + "test_risks"),
    (BACKUPS, "self.share * jnp.clip", "jnp.clip", V + "test_munchausen_by_hand"),
    (BACKUPS, "mixed(policy, -log_policy)", "mixed(policy, log_policy)", V + "test_munchausen_by_hand"),
    (BACKUPS, "-1e4 * self.temperature", "-jnp.inf", V + "test_munchausen_never_counts_what_is_not_legal"),
    (BACKUPS, "        return greedy", "        return jnp.ones_like(greedy)", V + "test_retrace_and_peng_by_hand"),
    ("yozh/networks/popart.py", "new_mean) / new_sigma", "new_mean) / old_sigma",
     V + "test_popart_moves_its_scale_and_not_its_answers"),
    ("yozh/networks/noisy.py", "jnp.sign(x) * jnp.sqrt(jnp.abs(x))", "x", N + "test_factorised_noise"),
    ("yozh/networks/noisy.py", "jax.random.fold_in(key, i)", "key", N + "test_layers_draw_apart_from_each_other"),
    ("yozh/networks/heads.py", "advantage.mean(0,", "advantage.mean(1,",
     V + "test_dueling_advantages_have_mean_zero_for_each_number"),
    (DQN, "self.scale.encode(net, known.worth)", "known.worth", D + "test_values_come_out_true"),
    (DQN, "self.reward(batch.step.reward)", "batch.step.reward", D + "test_what_is_told_and_what_is_learnt"),
    (DQN, "        if explore:", "        if True:", N + "test_acting_explores_by_noise_alone_and_evaluation_has_none"),
    (DQN, "self.noisy is not None or ", "", N + "test_acting_explores_by_noise_alone_and_evaluation_has_none"),
    (DQN, " or self.heads.explores", "", E + "test_a_head_is_drawn_for_an_episode_and_followed"),
    (DQN, "jax.lax.stop_gradient(net), state", "net, state", R + "test_gradients_flow_through_a_sequence_and_not_through_the_burn_in"),
    (DQN, "{MEMORY: memory}", "{MEMORY: jax.tree.map(jnp.zeros_like, memory)}", R + "test_the_stored_memory_is_the_one_that_acted"),
    (DQN, "windows(looked, self.burn_in,", "windows(looked, 0,", R + "test_targets_and_priorities_by_hand"),
    (SEQUENCES, "x[start + i : start + i + positions]", "x[start : start + positions]", R + "test_targets_and_priorities_by_hand"),
    (SEQUENCES, "m[0], batch.extras", "m[-1], batch.extras", R + "test_targets_and_priorities_by_hand"),
    (SAMPLING, "error = error * weight", "error = 1 * error", R + "test_sizes"),
    (SAMPLING, "(1.0 - self.peak) * mean", "self.peak * mean", R + "test_sizes"),
    (PRIORITISED, "arange(self.lead, self.lead + self.positions,", "arange(0, self.positions,",
     R + "test_every_step_that_can_be_learnt_from_is_drawn"),
    (PRIORITISED, "[learnt % moments].all(1)", "[learnt % moments].any(1)", R + "test_every_step_that_can_be_learnt_from_is_drawn"),
    (HEADS, "x[:, i], look(step)", "x[:, 0], look(step)", H + "test_targets_are_those_of_each_answer_alone"),
    (HEADS, "(heads, self.gammas(gamma))", "(heads, 0 * self.gammas(gamma) + gamma)", H + "test_targets_are_those_of_each_answer_alone"),
    (HEADS, "nodes(gamma) ** self.k", "nodes(gamma)", H + "test_hyperbolic_discounts"),
    (HEADS, "prefer.min(-2) > illegal", "prefer.min(-2) >= illegal", H + "test_actions_that_are_not_legal_stay_so_in_a_mixture"),
    (HEADS, "head < 0, jax", "head < 9, jax", E + "test_a_head_is_drawn_for_an_episode_and_followed"),
    (HEADS, "self.share(window) / self.count", "jnp.ones((len(window.weight), self.count))", E + "test_heads_learn_only_from_their_share"),
    (HEADS, "self.chance, prefer.shape", "0.5, prefer.shape", E + "test_masks_come_as_often_as_they_should"),
    (HEADS, "self.prior * x, fixed.head", "x, fixed.head", E + "test_prior"),
    ("yozh/networks/following.py", "+ jax.lax.stop_gradient(self.fixed).read", "+ self.fixed.read", E + "test_heads_learn_only_from_their_share"),
    ("yozh/environments/deep_sea.py", "-0.01 / self.size", "0.01 / self.size", E + "test_deep_sea"),
    (PQN, "jnp.max(q, -1)[1:]", "jnp.max(q, -1)[:-1]", Q + "test_the_loss_as_the_paper_prints_it"),
    (PQN, "self.gamma, self.lam)", "self.gamma, 1.0)", Q + "test_the_loss_as_the_paper_prints_it"),
    (PQN, "self.reward(batch.step.reward)", "batch.step.reward", Q + "test_the_loss_as_the_paper_prints_it"),
    (PQN, "batch.target), batch.weight)", "batch.target), 0 * batch.weight + 1)", Q + "test_the_loss_as_the_paper_prints_it"),
    ("yozh/agents/minibatches.py", "shuffle(key, self.weight.shape[1])", "jnp.zeros(self.weight.shape[1], jnp.int32)",
     Q + "test_minibatches_cover_every_step_once"),
    ("yozh/agents/minibatches.py", "m[order], self.memory", "m[order[::-1]], self.memory",
     Q + "test_sequences_with_memory_stay_whole_beside_it"),
    ("yozh/agents/exploration.py", "rank < 1.0", "rank < 0.5", Q + "test_epsilon_greedy_draws_what_is_legal_alike"),
    ("yozh/networks/torsos.py", "layer_norm((outputs, *size), self.norm)", "layer_norm((outputs, *size), False)",
     Q + "test_the_norm_goes_into_every_torso_of_a_dict"),
    ("yozh/networks/torsos.py", "self.init, self.norm).build", "self.init).build", Q + "test_a_norm_before_every_activation"),
    ("yozh/networks/layers.py", "[self.activation](norm(layer(x)))", "[self.activation](layer(x))",
     Q + "test_a_norm_before_every_activation"),
    (TABULAR + "exact.py", "mdp.reward + gamma * np", "mdp.reward + np", T + "test_values_by_hand"),
    (TABULAR + "exact.py", "np.eye(mdp.states) - gamma * p", "np.eye(mdp.states) - p", T + "test_values_by_hand"),
    (TABULAR + "exact.py", "tolerance * max(1.0", "0.1 * max(1.0",
     T + "test_value_and_policy_iteration_agree_with_the_linear_solve"),
    (TABULAR + "exact.py", "np.where(better[:, None], greedy(q), policy)", "np.where(better[:, None], greedy(-q), policy)",
     T + "test_value_and_policy_iteration_agree_with_the_linear_solve"),
    (TABULAR + "mdp.py", "uniform(key) * reach[-1]", "uniform(key) * reach[0]",
     T + "test_a_trajectory_goes_as_often_as_the_chances_say"),
    (TABULAR + "mdp.py", "jnp.where(ends, mdp.begin(again), follows)", "follows",
     T + "test_a_trajectory_goes_as_often_as_the_chances_say"),
    (TABULAR + "mdp.py", "mean + spread *", "mean + 0 *", T + "test_rewards_are_normal"),
    (TABULAR + "prediction.py", "self.alpha * step.ratio_tm1 * _error", "self.alpha * _error", T + "test_rules_as_written_out"),
    (TABULAR + "prediction.py", "step.discount_t * self.lam * trace", "self.lam * trace", T + "test_rules_as_written_out"),
    (TABULAR + "prediction.py", "away = step.x_tm1 - step.discount_t * step", "away = step.x_tm1 - step",
     T + "test_rules_as_written_out"),
    (TABULAR + "prediction.py", "- step.discount_t * known * step.x_t", "+ step.discount_t * known * step.x_t",
     T + "test_gradient_td_converges_on_bairds_star"),
    (TABULAR + "prediction.py", "(_error(w, step) - known)", "(_error(w, step) + known)", T + "test_rules_as_written_out"),
    (TABULAR + "prediction.py", "jnp.arange(len(one)) + n,", "jnp.arange(len(one)) + 1,", T + "test_n_steps_as_written_out"),
    (TABULAR + "prediction.py", "steps.ratio_tm1, going, one", "steps.ratio_tm1, 1.0, one", T + "test_n_steps_as_written_out"),
    (TABULAR + "prediction.py", "x + c.mean(0)", "x + c.sum(0)", T + "test_td_diverges_on_bairds_star"),
    (TABULAR + "prediction.py", "jnp.dot(w, step.x_t) -", "0.9 * jnp.dot(w, step.x_t) -", T + "test_the_deadly_triad"),
    (TABULAR + "control.py", "look_t.q, look_t.q[::-1]", "look_t.q, look_t.q", S + "test_its_numbers_hold[maximisation_bias]"),
    (TABULAR + "control.py", "look_t.q[:, look_t.action]", "look_t.q.max(-1)", T + "test_control_finds_its_fixed_point"),
    (TABULAR + "control.py", "(look_t.q @ look_t.policy)", "look_t.q.max(-1)", T + "test_control_finds_its_fixed_point"),
    (TABULAR + "control.py", "masked(w @ x[state], jnp", "(lambda q, _: q)(w @ x[state], jnp",
     T + "test_illegal_actions_are_never_bootstrapped_from"),
    (TABULAR + "control.py", "best / best.sum()", "best / 1.0", T + "test_epsilon_greedy_shares_among_the_best"),
    (FORESIGHT, "reach = 1.0 + gamma * self.reach", "reach = 1.0 + self.reach", F + "test_sums_are_those_of_whole_episodes"),
    (FORESIGHT, "cut * gamma * self.reach * value", "0.0 * gamma * self.reach * value", F + "test_sums_are_those_of_whole_episodes"),
    (FORESIGHT, "going * (self.states + whole)", "self.states + whole", F + "test_sums_are_those_of_whole_episodes"),
    (FORESIGHT, "cut = 1.0 - step.first.astype(np.float32), step.last.astype(np.float32) * step.discount",
     "cut = 1.0 - step.first.astype(np.float32), 0.0 * step.discount", F + "test_a_time_limit_cuts_no_return[True]"),
    (EVALUATION, "onward(value, agent.reward(step.reward), step", "onward(value, step.reward, step",
     F + "test_of_two_steps_the_values_and_the_returns_are_known[False]"),
    (EVALUATION, "np.asarray(agent.reward(jnp.asarray(step.reward)))", "np.asarray(step.reward)",
     F + "test_of_two_steps_the_values_and_the_returns_are_known[True]"),
    (DQN, "self.heads.judge(look.outcomes.mean(), self.gamma), chosen", "self.heads.judge(look.prefer, self.gamma), chosen",
     F + "test_what_is_expected_is_the_mean_of_the_action_chosen[parts3]"),
    (DQN, " or isinstance(self.heads, Hyperbolic)", "", F + "test_who_learns_no_discounted_return_expects_none[parts1]"),
    ("yozh/stores/replay.py", "[0] + self.window) * state.streams", "[0]) * state.streams",
     F + "test_ages_are_those_of_the_windows_drawn"),
    ("yozh/stores/host.py", "[0] + self.window) * self.streams", "[0]) * self.streams", F + "test_ages_are_those_of_the_windows_drawn"),
    (PRIORITISED, "mass ** (1.0 / jnp", "mass ** (1.0 + 0.0 / jnp", F + "test_priorities_are_those_that_were_given[proportional]"),
    (PRIORITISED, "age = (ring.head - place // streams)", "age = (ring.head - place)",
     F + "test_priorities_are_those_that_were_given[rank]"),
    (REPLAYED, "sampling.weights(w, state.counts)", "w", F + "test_what_a_run_replays[replay1]"),
    (PRIORITISED, "priority > 0, x**self.alpha", "priority > 0, x**0.0",
     S + "test_what_is_drawn_decides_how_long_the_blind_cliffwalk_takes"),
    ("yozh/networks/heads.py", "return self.value(x).reshape(shape) +", "return 0.0 * self.value(x).reshape(shape) +",
     S + "test_dueling_tells_duplicated_actions_better"),
    ("yozh/networks/noisy.py", "self.weight_sigma * by_weight", "jax.lax.stop_gradient(self.weight_sigma) * by_weight",
     S + "test_noise_fades_where_something_was_learnt"),
    ("yozh/agents/risks.py", "jnp.minimum(level / self.alpha, 1.0)", "level", S + "test_two_peaks_are_seen_and_a_risk_is_shunned"),
    ("yozh/networks/popart.py", "(old_mean - new_mean) / new_sigma", "(new_mean - old_mean) / new_sigma", S + "test_popart_learns_beside_an_outlier"),
    (DQN, "if not self.double:", "if True:", S + "test_double_promises_less_too_much"),
    ("yozh/stores/replay.py", "(bits[0] % starts)", "(bits[0] % jnp.uint32(32))", S + "test_without_a_replay_streaks_are_forgotten"),
    ("yozh/agents/targets.py", "due = updates % self.period == 0", "due = updates % 1 == 0", S + "test_a_target_network_holds_values_down"),
]  # fmt: skip


def survives(file: str, original: str, mutated: str, node: str) -> str | None:
    """Why the fault went unnoticed, or nothing if the test failed as it must."""
    source = (ROOT / file).read_text()
    if source.count(original) != 1:
        return f"the snippet occurs {source.count(original)} times"
    with tempfile.TemporaryDirectory() as folder:
        for part in ("yozh", "tests"):
            shutil.copytree(ROOT / part, Path(folder, part), ignore=shutil.ignore_patterns("__pycache__"))
        Path(folder, file).write_text(source.replace(original, mutated))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", node]
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True
        )
    return None if done.returncode == 1 else f"pytest ended with {done.returncode}"


def main(words: list[str]) -> int:
    chosen = [m for m in MUTATIONS if not words or any(w in m[0] or w in m[3] for w in words)]
    alive = 0
    for file, original, mutated, node in chosen:
        reason = survives(file, original, mutated, node)
        alive += reason is not None
        print(f"{'SURVIVED' if reason else 'red':8} {file}: {original} -> {mutated} ({reason or node})", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} mutations turn their test red")
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
