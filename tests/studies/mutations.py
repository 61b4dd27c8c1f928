"""The mistakes of `mutants`: what stands in a file, what a mistake would put there, and the tests that look at it.

Quickest first. They are like those that people make, spread over the rooms of the package.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A mistake: `old`, which occurs once in `file`, becomes `new`; `tests` are those of the default run nearby."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "data split before its edge", "bayes_dasl/data/datasets.py",
        "train, test = data.isel({index: values <= value}), data.isel({index: values > value})",
        "train, test = data.isel({index: values < value}), data.isel({index: values >= value})",
        ("tests/test_data.py::TestSplit",),
    ),
    Mutant(
        "units compared without case", "bayes_dasl/data/units.py",
        'return " ".join(one.split()) == " ".join(other.split())',
        'return " ".join(one.lower().split()) == " ".join(other.lower().split())',
        ("tests/test_data.py::TestUnits",),
    ),
    Mutant(
        "step forcing late by one datum", "bayes_dasl/data/layer_inputs.py",
        'at = jnp.searchsorted(self.times, t, side="right") - 1',
        'at = jnp.searchsorted(self.times, t, side="left") - 1',
        ("tests/test_forcing.py::TestBetweenTheData",),
    ),
    Mutant(
        "sigma x 1.2 in normal noise", "bayes_dasl/noise/families.py",
        "return dist.Normal(prediction, self.sigma)",
        "return dist.Normal(prediction, 1.2 * self.sigma)",
        ("tests/test_noise.py::test_log_density",),
    ),
    Mutant(
        "one key for all prior draws", "bayes_dasl/priors.py",
        "keys = jax.random.split(key, max(len(leaves), 1))[: len(leaves)]",
        "keys = jnp.stack([key] * len(leaves))",
        ("tests/test_random.py::TestPriorDraws",),
    ),
    Mutant(
        "a JAX key printed as its last number", "bayes_dasl/_jax/keys.py",
        "str(jax.random.key_data(as_key(key)).tolist())",
        "int(jax.random.key_data(as_key(key))[-1])",
        ("tests/test_random.py::TestKeys",),
    ),
    Mutant(
        "a checkpoint's digest is not compared", "bayes_dasl/_runs/journal.py",
        'if magic + b"\\n" != _MAGIC or digest != _digest(content):',
        'if magic + b"\\n" != _MAGIC:',
        ("tests/test_journal.py::test_a_flipped_bit_is_seen_wherever_it_is",),
    ),
    Mutant(
        "a file takes its place before it reached the disk", "bayes_dasl/_runs/files.py",
        "        _reach_the_disk(temporary)\n",
        "",
        ("tests/test_journal.py::test_a_step_that_does_not_reach_the_disk_is_not_there",
         "tests/test_posterior.py"),
    ),
    Mutant(
        "two processes in one folder", "bayes_dasl/_runs/lock.py",
        "        lock.acquire()\n",
        "        pass\n",
        ("tests/test_lock.py",),
    ),
    Mutant(
        "what a killed write left stays", "bayes_dasl/_runs/files.py",
        '        for path in folder.glob(f".*{_UNFINISHED}"):\n',
        "        for path in ():\n",
        ("tests/test_journal.py::test_an_interrupted_write_does_no_harm_and_leaves_nothing",),
    ),
    Mutant(
        "a file of draws is read whatever its checksum", "bayes_dasl/prediction/posterior.py",
        "if seal and digest != _digest(content):",
        "if False:",
        ("tests/test_posterior.py::TestFile::test_a_flipped_bit",),
    ),
    Mutant(
        "a scheduler is not heard", "bayes_dasl/_runs/signals.py",
        "            raise KeyboardInterrupt\n",
        "            pass\n",
        ("tests/test_signals.py",),
    ),
    Mutant(
        "the CRPS of few draws is not the fair one", "bayes_dasl/judgement/ensemble_scores.py",
        'estimator = "pwm" if fct.shape[1] > 1 else "nrg"',
        'estimator = "nrg"',
        ("tests/test_scores.py::test_errors_and_fair_crps_follow_their_definitions",),
    ),
    Mutant(
        "PIT without a rank for the datum itself", "bayes_dasl/judgement/scores.py",
        "values = (below + uniform * (equal + 1)) / (draws.shape[0] + 1)",
        "values = (below + uniform * equal) / draws.shape[0]",
        ("tests/test_scores.py::test_pit_is_uniform_however_few_the_draws",
         "tests/test_scores.py::test_pit_of_counts_is_uniform_only_for_a_calibrated_forecast"),
    ),
    Mutant(
        "one-sided intervals in the coverage", "bayes_dasl/judgement/ensemble_scores.py",
        "return np.quantile(fct, [(1 - mass) / 2, (1 + mass) / 2], axis=1)",
        "return np.quantile(fct, [1 - mass, mass], axis=1)",
        ("tests/test_scores.py::test_coverage_is_nominal_only_for_the_right_spread",),
    ),
    Mutant(
        "the log score averages logarithms", "bayes_dasl/judgement/log_score.py",
        "total = jax.nn.logsumexp(jnp.where(failed, -jnp.inf, density), axis=0)",
        "total = jnp.log(number) + jnp.where(failed, 0.0, density).sum(axis=0) / number",
        ("tests/test_log_score.py::test_the_log_score_is_that_of_the_exact_mixture",),
    ),
    Mutant(
        "few members are repeated and not moved apart", "bayes_dasl/prediction/members.py",
        "return np.sqrt((members + 1) / (2 * gammaincinv((members - 1) / 2, level)))",
        "return np.ones(repeats)",
        ("tests/test_few_members.py::test_factors_are_those_of_another_member",),
    ),
    Mutant(
        "epistemic variance by n, the total by n - 1", "bayes_dasl/judgement/decomposition.py",
        '"epistemic": (centred**2).mean(axis=0) - square_of_mean,',
        '"epistemic": (centred**2).mean(axis=0),',
        ("tests/test_decompose.py::test_total_is_aleatoric_plus_epistemic",),
    ),
    Mutant(
        "interaction from more than the epistemic variance", "bayes_dasl/judgement/decomposition.py",
        'found["interaction"] = epistemic - found["science"] - found["network"]',
        'found["interaction"] = whole.var(axis=0) + 1 - found["science"] - found["network"]',
        ("tests/test_shares.py::test_of_independent_groups",),
    ),
    Mutant(
        "entropy of cells instead of counts", "bayes_dasl/judgement/entropy.py",
        "each += np.bincount(draw, width[cell] * special.entr(p), len(mean))",
        "each += np.bincount(draw, special.entr(p), len(mean))",
        ("tests/test_entropy.py::test_every_count_is_in_a_cell",),
    ),
    Mutant(
        "persistence by the wrong lead time", "bayes_dasl/judgement/baselines.py",
        "_pairs(seen, abs(t - seen[last]), float(np.median(np.diff(np.unique(seen)))) / 2)",
        "_pairs(seen, abs(t - seen[0]), float(np.median(np.diff(np.unique(seen)))) / 2)",
        ("tests/test_baselines.py::test_persistence_takes_the_changes_at_the_same_lead",),
    ),
    Mutant(
        "fitted values count as held out", "bayes_dasl/judgement/matching.py",
        "return values.where(~(known.reindex(at) > 0))",
        "return values",
        ("tests/test_scores.py::test_what_was_fitted_is_known_by_row",),
    ),
    Mutant(
        "residuals are blamed for being small", "bayes_dasl/judgement/residuals.py",
        "often = share_beyond(theirs, value)",
        "often = share_beyond(-theirs, -value)",
        ("tests/test_adequacy.py::test_planted_faults_are_found",),
    ),
    Mutant(
        "noise may grow with the prediction", "bayes_dasl/judgement/residuals.py",
        "share_beyond(np.abs(each), abs(value))",
        "share_beyond(-each, -value)",
        ("tests/test_adequacy.py::test_planted_faults_are_found[relative_noise]",),
    ),
    Mutant(
        "nothing is rarer than one in all replicates", "bayes_dasl/judgement/residuals.py",
        "return float(min(_TAIL * np.exp(-(value - tail) / excess), 1 / replicates.size))",
        "return 0.1 / replicates.size",
        ("tests/test_adequacy.py::test_noise_a_hundred_times_as_large_is_bad_however_much_is_looked_at",),
    ),
    Mutant(
        "data that lie far out are as good as near ones", "bayes_dasl/judgement/adequacy.py",
        "worse = 2 * min(fewer, further)",
        "worse = 2 * fewer",
        ("tests/test_adequacy.py::test_planted_faults_are_found[one_error_for_all]",),
    ),
    Mutant(
        "a rival that loses is said to win", "bayes_dasl/judgement/adequacy.py",
        "if mean > max(_LEAD, _standard_error(lead)):",
        "if -mean > max(_LEAD, _standard_error(lead)):",
        ("tests/test_adequacy.py::test_a_rival_or_a_baseline_that_wins_is_named",),
    ),
    Mutant(
        "climatology by its mean", "bayes_dasl/judgement/baselines.py",
        "return np.tile(values[:, None], (1, time.size))",
        "return np.full((values.size, time.size), values.mean())",
        ("tests/test_baselines.py::test_climatology_repeats_the_observed_training_values",),
    ),
    Mutant(
        "R-hat good below 1.02", "bayes_dasl/judgement/mixing.py",
        "worst, most = int(found.argmax()), 1 + 0.01 * allowed",
        "worst, most = int(found.argmax()), 1 + 0.02 * allowed",
        ("tests/test_diagnostics.py",),
    ),
    Mutant(
        "failing solves are divergences too", "bayes_dasl/judgement/diagnosis.py",
        "diverging = diverging & ~cut_short",
        "diverging = diverging | cut_short",
        ("tests/test_diagnostics.py::test_a_trajectory_that_meets_a_failing_solve_is_counted_once",),
    ),
    Mutant(
        "the verdict is that of the best finding", "bayes_dasl/_findings.py",
        "return LEVELS[max((LEVELS.index(f.level) for f in findings), default=0)]",
        "return LEVELS[min((LEVELS.index(f.level) for f in findings), default=0)]",
        ("tests/test_diagnostics.py::test_the_stuck_chain_is_named",
         "tests/test_diagnostics.py::test_each_fault_has_its_finding_and_a_remedy"),
    ),
    Mutant(
        "nested R-hat good below 1.02", "bayes_dasl/_findings.py",
        "most = 1 + 0.01 * allowed",
        "most = 1 + 0.02 * allowed",
        ("tests/test_run_findings.py::test_a_fact_of_the_run_is_a_finding",),
    ),
    Mutant(
        "chains dealt out among superchains", "bayes_dasl/_statistics/convergence.py",
        "numbers = np.arange(superchains).repeat(len(draws) // superchains)",
        "numbers = np.tile(np.arange(superchains), len(draws) // superchains)",
        ("tests/test_many_chain.py::test_nested_rhat_of_known_draws",),
    ),
    Mutant(
        "k-hat good below 0.8", "bayes_dasl/_statistics/importance.py",
        "_LARGEST_PARETO_K = 0.7",
        "_LARGEST_PARETO_K = 0.8",
        ("tests/test_update.py::test_fewer_draws_must_have_a_thinner_tail",),
    ),
    Mutant(
        "copies of a draw weigh as one", "bayes_dasl/_statistics/importance.py",
        "_normalised(smoothed + np.log(repeats))",
        "_normalised(smoothed)",
        ("tests/test_update.py::test_draws_that_stand_twice_do_not_look_like_a_tail",
         "tests/test_update.py::test_weights_are_those_of_arviz_and_draws_keep_their_order"),
    ),
    Mutant(
        "stacking weights in the order of their rank", "bayes_dasl/revision/stacking.py",
        'weights = np.array([float(found.loc[name, "weight"]) for name in trees]).clip(min=0)',
        'weights = found["weight"].to_numpy(float).clip(min=0)',
        ("tests/test_stacking.py",),
    ),
    Mutant(
        "tolerances that are not tightened", "bayes_dasl/revision/solver_check.py",
        'finer["rtol"] = min(node.rtol, _FINEST_RTOL)',
        'finer["rtol"] = node.rtol',
        ("tests/test_solver_check.py::test_every_tolerance_is_tightened_however_deep",),
    ),
    Mutant(
        "forecast bands of 90 % by 10 and 90 %", "bayes_dasl/plots/forecast.py",
        "(0.05, 0.25, 0.5, 0.75, 0.95)",
        "(0.1, 0.25, 0.5, 0.75, 0.9)",
        ("tests/test_plots.py::test_forecast_bands_are_quantiles_of_the_draws_that_did_not_fail",),
    ),
    Mutant(
        "a digit less in the report", "bayes_dasl/reports/_text.py",
        "decimals = max(0, digits - 1 - math.floor(math.log10(abs(x)))) if x else 0",
        "decimals = max(0, digits - 2 - math.floor(math.log10(abs(x)))) if x else 0",
        ("tests/test_report.py::test_the_star_marks_the_best_of_each_column",),
    ),
    Mutant(
        "forecast times without the last", "bayes_dasl/study.py",
        "np.arange(start, until + step / 2, step)",
        "np.arange(start, until, step)",
        ("tests/test_study.py::test_future_times",),
    ),
    Mutant(
        "check ends with 0 whatever it finds", "bayes_dasl/cli.py",
        "        _exit_by(result.level for result in checks.values())\n",
        "",
        ("tests/test_cli.py::test_check_says_by_its_exit_code_that_a_model_cannot_be_fitted",),
    ),
    Mutant(
        "a rival's sampling has no say in the exit code", "bayes_dasl/cli.py",
        '_exit_by([*(verdict["sampling"] for verdict in verdicts.values()), verdicts[done.study.label]["model"]])',
        "_exit_by([verdicts[done.study.label][aspect] for aspect in ('sampling', 'model')])",
        ("tests/test_cli.py::test_the_exit_code_tells_the_verdict",),
    ),
    Mutant(
        "swapped outputs of a network", "bayes_dasl/networks/network.py",
        "return {name: out[..., i] for i, name in enumerate(self.outputs)}",
        "return {name: out[..., i] for i, name in enumerate(reversed(self.outputs))}",
        ("tests/test_networks.py::TestValues::test_by_hand",),
    ),
    Mutant(
        "network inputs are not centred", "bayes_dasl/networks/network.py",
        "features = (features - location) / width",
        "features = features / width",
        ("tests/test_networks.py::TestValues::test_by_hand",),
    ),
    Mutant(
        "fan-out for fan-in", "bayes_dasl/networks/network.py",
        "sd = scale * (weight.size / weight.shape[0]) ** -0.5 if weight.ndim > 1 else bias",
        "sd = scale * weight.shape[0] ** -0.5 if weight.ndim > 1 else bias",
        ("tests/test_networks.py::TestPriors::test_scales_by_layer",),
    ),
    Mutant(
        "horseshoe's scale as if most weights mattered", "bayes_dasl/networks/weights.py",
        "dist.HalfCauchy(few / (size - few))",
        "dist.HalfCauchy(few / size)",
        ("tests/test_weights.py::TestHorseshoe::test_few_weights_are_not_shrunk",),
    ),
    Mutant(
        "splines without their norm", "bayes_dasl/adaptive/bases/families.py",
        "return self._splines(x, self.degree) / math.sqrt(mean_square(self.degree))",
        "return self._splines(x, self.degree)",
        ("tests/test_basis.py::TestBSpline::test_against_scipy",),
    ),
    Mutant(
        "totals weighed twice are not conserved", "bayes_dasl/hybrid/conserve.py",
        "matrix.T @ jnp.linalg.inv(matrix @ matrix.T) @ matrix",
        "matrix.T @ matrix",
        ("tests/test_hybrid.py::TestFields::test_totals_are_conserved_whatever_a_network_says",),
    ),
    Mutant(
        "what the parameters could do is added", "bayes_dasl/hybrid/orthogonal.py",
        "return {name: value - along[name] for name, value in added.items()}",
        "return {name: value + along[name] for name, value in added.items()}",
        ("tests/test_orthogonal.py::test_what_is_left_has_no_share_of_the_sensitivities",),
    ),
    Mutant(
        "aliases of products", "bayes_dasl/layers/pde/spectral.py",
        "kept = kept & (3 * np.abs(count) < cells[name])",
        "kept = kept & (2 * np.abs(count) < cells[name])",
        ("tests/test_spectral.py::TestOperators::test_a_product_has_no_alias",),
    ),
    Mutant(
        "diffusion up the gradient", "bayes_dasl/layers/pde/finite_volume.py",
        "self._advected(field) - self._diffused(field)",
        "self._advected(field) + self._diffused(field)",
        ("tests/test_finite_volume.py::TestConservation::test_the_flux_into_a_closed_form",),
    ),
    Mutant(
        "a given flux along the axis, not outward", "bayes_dasl/layers/pde/finite_volume.py",
        "flux = flux.at[at].set(sign * self._at_side(here.value, field, end))",
        "flux = flux.at[at].set(self._at_side(here.value, field, end))",
        ("tests/test_finite_volume.py::TestConservation::test_a_given_flux_is_what_flows_out",),
    ),
    Mutant(
        "a Neumann side's derivative inward", "bayes_dasl/layers/pde/boundary.py",
        "return 0.0, 1.0, self.gradient",
        "return 0.0, -1.0, self.gradient",
        ("tests/test_finite_volume.py::TestConservation::test_the_flux_into_a_closed_form",),
    ),
    Mutant(
        "swapped observables", "bayes_dasl/model/core.py",
        "prediction.values[name], prediction.variances.get(name)",
        "prediction.values[self.layer.outputs[self.observables.index(name)]], prediction.variances.get(name)",
        ("tests/test_model.py::TestNoise", "tests/test_model.py::TestDensity::test_against_scipy"),
    ),
    Mutant(
        "a failing solve is unlikely, not impossible", "bayes_dasl/model/core.py",
        'numpyro.factor("solver_ok", jnp.where(prediction.ok, 0.0, -jnp.inf))',
        'numpyro.factor("solver_ok", jnp.where(prediction.ok, 0.0, -1e6))',
        ("tests/test_model.py::TestFailure",),
    ),
    Mutant(
        "data of a failing solve are as likely as their mask", "bayes_dasl/prediction/predictive.py",
        "{name: jnp.where(ok | jnp.isnan(value), value, -jnp.inf) for name, value in likelihood.items()},",
        "dict(likelihood),",
        ("tests/test_model.py::TestFailure",),
    ),
    Mutant(
        "wrong Jacobian of the normal's bijector", "bayes_dasl/inference/sites.py",
        "return norm.logpdf(x)",
        "return norm.logcdf(x)",
        ("tests/test_inference.py::test_values_keep_their_support_and_their_volume",),
    ),
    Mutant(
        "log density without the volume", "bayes_dasl/inference/problem.py",
        "value = log_joint + sum(volumes.values(), jnp.zeros(()))",
        "value = log_joint",
        ("tests/test_inference.py::test_the_flat_density_is_the_models_own",
         "tests/test_inference.py::test_values_keep_their_support_and_their_volume"),
    ),
    Mutant(
        "dropped prior of a group", "bayes_dasl/inference/problem.py",
        "found[leaf.group] += of_leaves[path] + volumes[path]",
        "found[leaf.group] += volumes[path]",
        ("tests/test_members.py::test_the_prior_of_a_group_is_that_of_its_leaves",),
    ),
    Mutant(
        "the metric of NUTS is frozen", "bayes_dasl/inference/nuts/warmup.py",
        'before, metric = metric, refine(metric, trace["position"], trace["gradient"])',
        "before, metric = metric, metric",
        ("tests/test_metric.py",),
    ),
    Mutant(
        "the step size of NUTS is frozen", "bayes_dasl/inference/nuts/chains.py",
        "tuning = jax.tree.map(lambda new, old: jnp.where(adapts, new, old), tuned, tuning)",
        "tuning = jax.tree.map(lambda new, old: jnp.where(adapts, old, old), tuned, tuning)",
        ("tests/test_metric.py::test_a_step_size_is_found_in_which_most_proposals_are_taken",),
    ),
    Mutant(
        "SWAG without its half", "bayes_dasl/inference/descent/swag.py",
        "return mean + (rng.normal(size=(number, mean.size)) * places.std(axis=0) + along) / np.sqrt(2)",
        "return mean + rng.normal(size=(number, mean.size)) * places.std(axis=0) + along",
        ("tests/test_members.py::test_swag_draws_from_its_normal",),
    ),
    Mutant(
        "units that stay do not count for more", "bayes_dasl/inference/descent/dropout.py",
        "(unit.max() + 1,)) / (1 - self.rate)",
        "(unit.max() + 1,))",
        ("tests/test_members.py::test_units_that_stay_count_for_those_left_out",),
    ),
    Mutant(
        "Laplace wider than the prior", "bayes_dasl/inference/descent/laplace.py",
        "np.sqrt(np.maximum(values, 1.0))",
        "np.sqrt(np.maximum(values, 1e-3))",
        ("tests/test_members.py::test_no_direction_of_laplace_is_wider_than_the_prior",),
    ),
    Mutant(
        "a minibatch counts as a part", "bayes_dasl/inference/descent/members.py",
        "weights = {n: w[index] * size / minibatch for n, w in own[\"weights\"].items()}",
        "weights = {n: w[index] for n, w in own[\"weights\"].items()}",
        ("tests/test_members.py::test_a_step_on_some_rows_is_on_average_one_on_all",),
    ),
    Mutant(
        "the increment counts dead particles", "bayes_dasl/inference/smc/tempering.py",
        "jnp.log(target_ess * live)",
        "jnp.log(target_ess * len(log_likelihood))",
        ("tests/test_smc.py::test_the_increment_meets_the_effective_sample_size",),
    ),
    Mutant(
        "the bound of the energy variance ten times as high", "bayes_dasl/inference/many_chain/sampler.py",
        "ENERGY_VARIANCE = 5e-4",
        "ENERGY_VARIANCE = 5e-3",
        ("tests/test_many_chain.py::test_the_bound_of_the_energy_variance_is_that_of_the_source",),
    ),
    Mutant(
        "a jump at the start does not act", "bayes_dasl/layers/ode.py",
        "lambda times: times == inputs.start",
        "lambda times: times < inputs.start",
        ("tests/test_jump.py::TestEdges::test_one_time_only",),
    ),
    Mutant(
        "an infusion that begins later has given as much", "bayes_dasl/layers/doses.py",
        "pulses.amount - _late(pulses.begin) * pulses.rate",
        "pulses.amount - 0 * pulses.rate",
        ("tests/test_doses.py::TestEvents::test_doses_infusions_repeats_and_resets",),
    ),
    Mutant(
        "an infusion goes on after a reset", "bayes_dasl/layers/doses.py",
        "jnp.minimum(begin + duration, given.until), begin < given.until",
        "begin + duration, begin < given.until",
        ("tests/test_doses.py::TestEvents::test_doses_infusions_repeats_and_resets",),
    ),
    Mutant(
        "a steady state counts the dose of its record twice", "bayes_dasl/layers/compartments.py",
        "- lag + steady.interval  # of",
        "- lag  # of",
        ("tests/test_compartments.py::test_every_event_is_the_sum_of_matrix_exponentials",),
    ),
    Mutant(
        "a row is called by its place", "bayes_dasl/data/frames.py",
        'f"line {label + 2}"',
        'f"line {label + 1}"',
        ("tests/test_tables.py::test_bad_tables",),
    ),
    Mutant(
        "gaps times their scale", "bayes_dasl/layers/shooting.py",
        "each = (ended[name] - begins[name][1:]) / self._gaps[name]",
        "each = (ended[name] - begins[name][1:]) * self._gaps[name]",
        ("tests/test_shooting.py::TestInAModel::test_the_density_counts_the_gaps",),
    ),
    Mutant(
        "Kalman gain without the noise", "bayes_dasl/layers/kalman.py",
        "total = variance + noise",
        "total = variance",
        ("tests/test_kalman.py::TestOrnsteinUhlenbeck::test_marginal_likelihood",),
    ),
    Mutant(
        "old data count twice in an update", "bayes_dasl/revision/updates.py",
        "log_weights = pushed.log_weight(problem.observed) - before",
        "log_weights = pushed.log_weight(problem.observed)",
        ("tests/test_update.py::test_a_few_data_are_taken_in_by_weights",),
    ),
    Mutant(
        "evidence of a sum, not of a mean", "bayes_dasl/inference/smc/tempering.py",
        "log_evidence=swarm.log_evidence + total - jnp.log(len(weight)),",
        "log_evidence=swarm.log_evidence + total,",
        ("tests/test_smc.py::test_a_conjugate_posterior_and_its_evidence[walk]",),
    ),
    Mutant(
        "weights of a guide against its volume", "bayes_dasl/inference/svi/variational.py",
        "ratio = lp - log_guide + log_volume",
        "ratio = lp - log_guide - log_volume",
        ("tests/test_svi.py::test_every_guide_agrees_with_a_conjugate_posterior[laplace]",),
    ),
    Mutant(
        "down the ELBO", "bayes_dasl/inference/svi/variational.py",
        "descent = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), -g, 0.0), slope)",
        "descent = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), slope)",
        ("tests/test_svi.py::test_a_fit_from_a_poor_start_becomes_the_normal_posterior[full_rank]",),
    ),
    Mutant(
        "a checkpoint knows nothing of its key", "bayes_dasl/inference/fitting.py",
        '        "key": printable(key),\n        "posterior_sha256"',
        '        "posterior_sha256"',
        ("tests/test_resume.py::test_a_jax_key_survives",),
    ),
    Mutant(
        "a prior that makes no data has no remedy", "bayes_dasl/before_fit/checks.py",
        '"widen the priors, or check units and the start time",',
        '"",',
        ("tests/test_check.py::test_a_prior_that_cannot_make_the_data_is_named",),
    ),
    Mutant(
        "anchors as wide as one", "bayes_dasl/inference/descent/members.py",
        "each = -0.5 * ((position - anchor) / widths) ** 2",
        "each = -0.5 * (position - anchor) ** 2",
        ("tests/test_members.py::test_anchored_members_spread_as_far_as_the_prior_and_no_further",),
    ),
    Mutant(
        "one bootstrap for all members", "bayes_dasl/inference/descent/members.py",
        "rng.multinomial(number, np.full(number, 1 / number), size=members)",
        "np.tile(rng.multinomial(number, np.full(number, 1 / number)), (members, 1))",
        ("tests/test_members.py::test_bootstrapped_members_see_other_data",),
    ),
)  # fmt: skip
