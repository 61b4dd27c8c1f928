"""The mistakes of `mutants`: what stands in a file, what a mistake would put there, and the tests
that look at it.

Quickest first. They are like those that people make, spread over the rooms of the package.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A mistake: `old`, which occurs once in `file`, becomes `new`; `tests` are those of the
    default run nearby.
    """

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
        "step forcing late by one datum", "bayes_dasl/data/forcings.py",
        'at = jnp.searchsorted(self.times, t, side="right") - 1',
        'at = jnp.searchsorted(self.times, t, side="left") - 1',
        ("tests/test_forcing.py::TestBetweenTheData",),
    ),
    Mutant(
        "sigma x 1.2 in normal noise", "bayes_dasl/noise/common_noises.py",
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
        ("tests/test_keys.py::TestKeys",),
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
        "a file of draws is read whatever its checksum", "bayes_dasl/prediction/save_and_load.py",
        "if seal and digest != _printed_digest(hashlib.sha256(content)):",
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
        "the CRPS of few draws is not the fair one", "bayes_dasl/scores/draws_at_data.py",
        'estimator = "pwm" if fct.shape[1] > 1 else "nrg"',
        'estimator = "nrg"',
        ("tests/test_scores.py::test_errors_and_fair_crps_follow_their_definitions",),
    ),
    Mutant(
        "PIT without a rank for the datum itself", "bayes_dasl/scores/draws_at_data.py",
        "values = (below + uniform * (equal + 1)) / (draws.shape[0] + 1)",
        "values = (below + uniform * equal) / draws.shape[0]",
        ("tests/test_scores.py::test_pit_is_uniform_however_few_the_draws",
         "tests/test_scores.py::test_pit_of_counts_is_uniform_only_for_a_calibrated_forecast"),
    ),
    Mutant(
        "one-sided intervals in the coverage", "bayes_dasl/scores/draws_at_data.py",
        "return np.quantile(fct, [(1 - mass) / 2, (1 + mass) / 2], axis=1)",
        "return np.quantile(fct, [1 - mass, mass], axis=1)",
        ("tests/test_scores.py::test_coverage_is_nominal_only_for_the_right_spread",),
    ),
    Mutant(
        "the log score averages logarithms", "bayes_dasl/scores/log_score.py",
        "total = jax.nn.logsumexp(jnp.where(failed, -jnp.inf, density), axis=0)",
        "total = jnp.log(number) + jnp.where(failed, 0.0, density).sum(axis=0) / number",
        ("tests/test_log_score.py::test_the_log_score_is_that_of_the_exact_mixture",),
    ),
    Mutant(
        "few members are repeated and not moved apart", "bayes_dasl/prediction/few_members.py",
        "return np.sqrt((members + 1) / (2 * gammaincinv((members - 1) / 2, level)))",
        "return np.ones(repeats)",
        ("tests/test_few_members.py::test_factors_are_those_of_another_member",),
    ),
    Mutant(
        "epistemic variance by n, the total by n - 1", "bayes_dasl/scores/decomposition.py",
        '"epistemic": (centred**2).mean(axis=0) - square_of_mean,',
        '"epistemic": (centred**2).mean(axis=0),',
        ("tests/test_decompose.py::test_total_is_aleatoric_plus_epistemic",),
    ),
    Mutant(
        "interaction from more than the epistemic variance", "bayes_dasl/scores/decomposition.py",
        "rest = epistemic - sum(", "rest = epistemic + 1 - sum(",
        ("tests/test_shares.py::test_of_independent_groups",),
    ),
    Mutant(
        "entropy of cells instead of counts", "bayes_dasl/sensitivity/entropy.py",
        "each += np.bincount(draw, width[cell] * special.entr(p), len(mean))",
        "each += np.bincount(draw, special.entr(p), len(mean))",
        ("tests/test_entropy.py::test_every_count_is_in_a_cell",),
    ),
    Mutant(
        "persistence by the wrong lead time", "bayes_dasl/scores/baselines.py",
        "_pairs_at_lead(seen, abs(t - seen[last]), ",
        "_pairs_at_lead(seen, abs(t - seen[0]), ",
        ("tests/test_baselines.py::test_persistence_takes_the_changes_at_the_same_lead",),
    ),
    Mutant(
        "fitted values count as held out", "bayes_dasl/scores/matching.py",
        "return values.where(~(known.reindex(at) > 0))",
        "return values",
        ("tests/test_scores.py::test_what_was_fitted_is_known_by_row",),
    ),
    Mutant(
        "residuals are blamed for being small", "bayes_dasl/verdict/residuals.py",
        "share_beyond(theirs, value), True",
        "share_beyond(-theirs, -value), True",
        ("tests/test_adequacy.py::test_planted_faults_are_found",),
    ),
    Mutant(
        "noise may grow with the prediction", "bayes_dasl/verdict/residuals.py",
        "share_beyond(np.abs(each), abs(value))",
        "share_beyond(-each, -value)",
        ("tests/test_adequacy.py::test_planted_faults_are_found[relative_noise]",),
    ),
    Mutant(
        "nothing is rarer than one in all replicates", "bayes_dasl/verdict/residuals.py",
        "return float(min(_TAIL * np.exp(-(value - tail) / excess), 1 / replicates.size))",
        "return 0.1 / replicates.size",
        ("tests/test_adequacy.py::test_noise_a_hundred_times_as_large_is_bad_however_much_is_looked_at",),
    ),
    Mutant(
        "a prior's standard deviation is the distance of its quartiles", "bayes_dasl/verdict/prior_findings.py",
        "spread = (high - low) / _QUARTILES",
        "spread = high - low",
        ("tests/test_prior_findings.py::test_a_contradiction_is_told_in_standard_deviations",),
    ),
    Mutant(
        "each parameter is judged as if it were the only one", "bayes_dasl/verdict/prior_findings.py",
        "2 * number * _chance(",
        "2 * _chance(",
        ("tests/test_prior_findings.py::test_many_parameters_are_judged_together",),
    ),
    Mutant(
        "skewness without its sign", "bayes_dasl/verdict/residuals.py",
        "return (centred**3).mean(axis=1) / spread**3",
        "return np.abs((centred**3).mean(axis=1) / spread**3)",
        ("tests/test_residual_findings.py::test_skewness_has_a_sign_in_the_message_and_the_remedy",),
    ),
    Mutant(
        "different scales of members are taken for tails", "bayes_dasl/verdict/residuals.py",
        "own, made = _in_own_scales(own, made, scales.members)",
        "pass",
        ("tests/test_residual_findings.py::test_a_scale_that_differs_between_members_is_named_and_not_taken_for_tails",),
    ),
    Mutant(
        "what a fit takes of few data is a smaller scale", "bayes_dasl/verdict/residuals.py",
        "left = float(np.clip(rows.size - leverage[rows].sum(), 1.0, most))",
        "left = most",
        ("tests/test_residual_findings.py::test_what_a_fit_takes_is_no_difference_of_scales",),
    ),
    Mutant(
        "rows with the labels of the fit are those of the fit", "bayes_dasl/prediction/future_forcings.py",
        "times = times[times < changed.min()] if changed.size else times",
        "times = times",
        ("tests/test_other_rows.py::test_another_table_counts_as_held_out",),
    ),
    Mutant(
        "serial correlation is taken for a coarse function", "bayes_dasl/updating/function_check.py",
        "if share_beyond(alike[1:], float(alike[0])) >= _RARE:",
        "if share_beyond(alike[1:], float(alike[0])) >= 0:",
        ("tests/test_function_check.py::TestSerialCorrelation::test_it_is_not_taken_for_a_coarse_function",),
    ),
    Mutant(
        "data that lie far out are as good as near ones", "bayes_dasl/verdict/coverage.py",
        "by_own = 2 * min(fewer, further)",
        "by_own = 2 * fewer",
        ("tests/test_adequacy.py::test_planted_faults_are_found[one_error_for_all]",),
    ),
    Mutant(
        "two looks at held-out data for the price of one", "bayes_dasl/verdict/coverage.py",
        "by_own = 2 * min(fewer, further)",
        "by_own = min(fewer, further)",
        ("tests/test_coverage.py::test_both_sides_count_beside_replicates",),
    ),
    Mutant(
        "a coverage is bad below a quarter", "bayes_dasl/verdict/coverage.py",
        "found.inside < found.number / 2",
        "found.inside < found.number / 4",
        ("tests/test_coverage.py::test_less_than_half_in_the_intervals_is_bad",),
    ),
    Mutant(
        "zeros that an interval ends at are all held", "bayes_dasl/scores/draws_at_data.py",
        "(below + uniform * (equal + 1))",
        "(below + 0.5 * (equal + 1))",
        ("tests/test_coverage.py::test_zeros_that_come_too_seldom_are_seen",
         "tests/test_scores.py::test_pit_of_counts_is_uniform_only_for_a_calibrated_forecast"),
    ),
    Mutant(
        "values that depend on one another show as much as independent ones", "bayes_dasl/_statistics/dependence.py",
        "found += max(number / float(inflation), min(number, 1))",
        "found += number",
        ("tests/test_dependence.py::test_hits_are_worth_as_many_as_their_sum_varies_by",
         "tests/test_adequacy.py::test_data_that_miss_together_show_nothing"),
    ),
    Mutant(
        "a lower score is a plain mean over observables", "bayes_dasl/scores/draws_at_data.py",
        "weights=number[known]",
        "weights=None",
        ("tests/test_dependence.py::test_how_much_lower_a_score_is_counts_every_datum_once",),
    ),
    Mutant(
        "one chain has two equal halves", "bayes_dasl/_statistics/convergence.py",
        "values[:, values.shape[1] - half :]",
        "values[:, :half]",
        ("tests/test_convergence.py::test_a_single_chain_is_judged_by_its_halves",),
    ),
    Mutant(
        "a competitor that loses is said to win", "bayes_dasl/verdict/leads.py",
        "if values.mean() > max(_LEAD, _lead_error(leads)):",
        "if -values.mean() > max(_LEAD, _lead_error(leads)):",
        ("tests/test_adequacy.py::test_a_rival_or_a_baseline_that_wins_is_named",),
    ),
    Mutant(
        "climatology by its mean", "bayes_dasl/scores/baselines.py",
        "def members(_: np.ndarray, values: np.ndarray, t: float) -> np.ndarray:\n"
        "        return values\n",
        "def members(_: np.ndarray, values: np.ndarray, t: float) -> np.ndarray:\n"
        "        return np.full(values.size, values.mean())\n",
        ("tests/test_baselines.py::test_climatology_repeats_the_observed_training_values",),
    ),
    Mutant(
        "R-hat good below 1.02", "bayes_dasl/verdict/chain_convergence.py",
        "worst, most = int(found.argmax()), 1 + 0.01 * allowed",
        "worst, most = int(found.argmax()), 1 + 0.02 * allowed",
        ("tests/test_diagnostics.py",),
    ),
    Mutant(
        "failing solves are divergences too", "bayes_dasl/verdict/diagnosis.py",
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
        ("tests/test_convergence.py::test_nested_rhat_of_known_draws",),
    ),
    Mutant(
        "k-hat good below 0.8", "bayes_dasl/_statistics/importance.py",
        "_LARGEST_PARETO_K = 0.7",
        "_LARGEST_PARETO_K = 0.8",
        ("tests/test_importance.py::test_fewer_draws_must_have_a_thinner_tail",),
    ),
    Mutant(
        "copies of a draw weigh as one", "bayes_dasl/_statistics/importance.py",
        "softmax(smoothed + np.log(repeats))",
        "softmax(smoothed)",
        ("tests/test_importance.py::test_draws_that_stand_twice_do_not_look_like_a_tail",
         "tests/test_importance.py::test_weights_are_those_of_arviz_and_draws_keep_their_order"),
    ),
    Mutant(
        "stacking weights in the order of their rank", "bayes_dasl/weighting/stacking.py",
        'weights = np.array([float(found.loc[name, "weight"]) for name in trees]).clip(min=0)',
        'weights = found["weight"].to_numpy(float).clip(min=0)',
        ("tests/test_stacking.py",),
    ),
    Mutant(
        "tolerances that are not tightened", "bayes_dasl/updating/tighter_tolerances.py",
        'finer["rtol"] = min(node.rtol, _FINEST_RTOL)',
        'finer["rtol"] = node.rtol',
        ("tests/test_solver_check.py::test_every_tolerance_is_tightened_however_deep",),
    ),
    Mutant(
        "forecast bands of 90 % by 10 and 90 %", "bayes_dasl/plots/_series.py",
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
        "forecast times without the last", "bayes_dasl/study/times.py",
        "np.arange(start, until + step / 2, step)",
        "np.arange(start, until, step)",
        ("tests/test_study.py::test_future_times",),
    ),
    Mutant(
        "check ends with 0 whatever it finds", "bayes_dasl/commands.py",
        '    _exit_by(level for level in levels if strict or level == "bad")\n',
        "",
        ("tests/test_cli.py::test_check_says_by_its_exit_code_that_a_model_cannot_be_fitted",),
    ),
    Mutant(
        "a run judges although it was not asked to be strict", "bayes_dasl/commands.py",
        "soft_wrap=True)\n    if strict:\n        _exit_by(",
        "soft_wrap=True)\n    if True:\n        _exit_by(",
        ("tests/test_cli.py::test_a_run_judges_only_if_it_is_asked_to_be_strict",),
    ),
    Mutant(
        "a competitor's sampling has no say in the exit code", "bayes_dasl/commands.py",
        '*(verdict["sampling"] for verdict in verdicts.values()),',
        '*(verdicts[name]["sampling"] for name in (own, MIXTURE) if name in verdicts),',
        ("tests/test_cli.py::test_the_exit_code_tells_the_verdict_where_it_is_asked_to",),
    ),
    Mutant(
        "swapped outputs of a network", "bayes_dasl/networks/network.py",
        "return {name: out[..., i] for i, name in enumerate(self.outputs)}",
        "return {name: out[..., i] for i, name in enumerate(reversed(self.outputs))}",
        ("tests/test_networks.py::TestValues::test_by_hand",),
    ),
    Mutant(
        "network inputs are not centred", "bayes_dasl/networks/network.py",
        "return (features - location) / width",
        "return features / width",
        ("tests/test_networks.py::TestValues::test_by_hand",),
    ),
    Mutant(
        "a recurrent network looks at the forcings of no step", "bayes_dasl/networks/recurrent.py",
        "realised(self.readout)(self(t, y, u)[\"hidden\"])",
        "realised(self.readout)(y[\"hidden\"])",
        ("tests/test_recurrent.py",),
    ),
    Mutant(
        "observables are not correlated at one time", "bayes_dasl/filtering/filter.py",
        "if which + 1 < len(numbers):",
        "if False:",
        ("tests/test_cross_correlation.py",),
    ),
    Mutant(
        "a censored residual is taken as known", "bayes_dasl/filtering/filter.py",
        "learnt = learnt if left is None else (1.0 - left)[..., None, None] * learnt",
        "pass",
        ("tests/test_correlated_zeros.py",),
    ),
    Mutant(
        "draws of correlated observables do not hold together", "bayes_dasl/prediction/predictive.py",
        "keys |= dict.fromkeys(cross.observables,",
        "dict.fromkeys(cross.observables,",
        ("tests/test_cross_correlation.py",),
    ),
    Mutant(
        "innovations are twice as correlated as residuals", "bayes_dasl/filtering/cross.py",
        "found = jnp.linalg.solve(system, -driven",
        "found = 2 * jnp.linalg.solve(system, -driven",
        ("tests/test_cross_correlation.py",),
    ),
    Mutant(
        "errors are in the units of the value, whatever they say", "bayes_dasl/data/input_table.py",
        "own = np.where(own == \"\", held, own)",
        "own = held",
        ("tests/test_tables.py",),
    ),
    Mutant(
        "fan-out for fan-in", "bayes_dasl/networks/weights.py",
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
        "splines without their norm", "bayes_dasl/unknown_functions/bases/families.py",
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
        "aliases of products", "bayes_dasl/pde/spectral.py",
        "kept = kept & (3 * np.abs(count) < cells[name])",
        "kept = kept & (2 * np.abs(count) < cells[name])",
        ("tests/test_spectral.py::TestOperators::test_a_product_has_no_alias",),
    ),
    Mutant(
        "diffusion up the gradient", "bayes_dasl/pde/finite_volume.py",
        "self._advected(field) - self._diffused(field)",
        "self._advected(field) + self._diffused(field)",
        ("tests/test_finite_volume.py::TestConservation::test_the_flux_into_a_closed_form",),
    ),
    Mutant(
        "a given flux along the axis, not outward", "bayes_dasl/pde/finite_volume.py",
        "flux = flux.at[at].set(sign * self._at_side(here.value, field, end))",
        "flux = flux.at[at].set(self._at_side(here.value, field, end))",
        ("tests/test_finite_volume.py::TestConservation::test_a_given_flux_is_what_flows_out",),
    ),
    Mutant(
        "a Neumann side's derivative inward", "bayes_dasl/pde/boundary.py",
        "return 0.0, 1.0, self.gradient",
        "return 0.0, -1.0, self.gradient",
        ("tests/test_finite_volume.py::TestConservation::test_the_flux_into_a_closed_form",),
    ),
    Mutant(
        "swapped observables", "bayes_dasl/model/model.py",
        "noise.around(values[name], variances.get(name))",
        "noise.around(values[self.layer.outputs[self.observables.index(name)]], "
        "variances.get(name))",
        ("tests/test_model.py::TestNoise", "tests/test_model.py::TestDensity::test_against_scipy"),
    ),
    Mutant(
        "a failing solve is unlikely, not impossible", "bayes_dasl/model/model.py",
        'numpyro.factor("solver_ok", jnp.where(prediction.ok, 0.0, -jnp.inf))',
        'numpyro.factor("solver_ok", jnp.where(prediction.ok, 0.0, -1e6))',
        ("tests/test_model.py::TestFailure",),
    ),
    Mutant(
        "data of a failing solve are as likely as their mask", "bayes_dasl/prediction/predictive.py",
        "name: jnp.where(ok | jnp.isnan(value), value, -jnp.inf)\n",
        "name: value\n",
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
        "value = log_joint + sum(log_dets.values(), jnp.zeros(()))",
        "value = log_joint",
        ("tests/test_inference.py::test_the_flat_density_is_the_models_own",
         "tests/test_inference.py::test_values_keep_their_support_and_their_volume"),
    ),
    Mutant(
        "dropped prior of a group", "bayes_dasl/inference/problem.py",
        "found[leaf.group] += of_leaves[path] + log_dets[path]",
        "found[leaf.group] += log_dets[path]",
        ("tests/test_members.py::test_the_prior_of_a_group_is_that_of_its_leaves",),
    ),
    Mutant(
        "the metric of NUTS is frozen", "bayes_dasl/inference/nuts/warmup.py",
        "metric, state = _refined(metric, trace), enter_new_metric(state)", "state = "
            "enter_new_metric(state)",
        ("tests/test_metric.py",),
    ),
    Mutant(
        "the step size of NUTS is frozen", "bayes_dasl/inference/nuts/chains.py",
        "tuning = jax.tree.map(lambda new, old: jnp.where(adapts, new, old), tuned, tuning)",
        "tuning = jax.tree.map(lambda new, old: jnp.where(adapts, old, old), tuned, tuning)",
        ("tests/test_metric.py::test_a_step_size_is_found_in_which_most_proposals_are_taken",),
    ),
    Mutant(
        "SWAG without its half", "bayes_dasl/engines/swag.py",
        "return mean + (rng.normal(size=(number, mean.size)) * iterates.std(axis=0) + along) / "
        "np.sqrt(2)",
        "return mean + rng.normal(size=(number, mean.size)) * iterates.std(axis=0) + along",
        ("tests/test_members.py::test_swag_draws_from_its_normal",),
    ),
    Mutant(
        "units that stay do not count for more", "bayes_dasl/engines/dropout.py",
        "(unit.max() + 1,)) / (1 - self.rate)",
        "(unit.max() + 1,))",
        ("tests/test_members.py::test_units_that_stay_count_for_those_left_out",),
    ),
    Mutant(
        "Laplace wider than the prior", "bayes_dasl/engines/laplace.py",
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
        "the increment counts dead particles", "bayes_dasl/engines/smc/tempering.py",
        "target_ess * live\n",
        "target_ess * len(log_likelihood)\n",
        ("tests/test_smc.py::test_the_increment_meets_the_effective_sample_size",),
    ),
    Mutant(
        "the bound of the energy variance ten times as high", "bayes_dasl/engines/many_chain/many_chain.py",
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
        "an infusion that begins later has given as much", "bayes_dasl/dosing/schedule.py",
        "pulses.amount - _late(pulses.begin) * pulses.rate",
        "pulses.amount - 0 * pulses.rate",
        ("tests/test_doses.py::TestEvents::test_doses_infusions_repeats_and_resets",),
    ),
    Mutant(
        "an infusion goes on after a reset", "bayes_dasl/dosing/schedule.py",
        "jnp.minimum(begin + duration, given.until), begin < given.until",
        "begin + duration, begin < given.until",
        ("tests/test_doses.py::TestEvents::test_doses_infusions_repeats_and_resets",),
    ),
    Mutant(
        "a steady state counts the dose of its record twice", "bayes_dasl/dosing/compartments.py",
        "- lag + steady.interval  # of",
        "- lag  # of",
        ("tests/test_compartments.py::test_every_event_is_the_sum_of_matrix_exponentials",),
    ),
    Mutant(
        "a row is called by its place", "bayes_dasl/data/input_table.py",
        'f"line {label + 2}"',
        'f"line {label + 1}"',
        ("tests/test_tables.py::test_bad_tables",),
    ),
    Mutant(
        "gaps times their scale", "bayes_dasl/equations/shooting.py",
        "each = (ended[name] - begins[name][1:]) / self._gaps[name]",
        "each = (ended[name] - begins[name][1:]) * self._gaps[name]",
        ("tests/test_shooting.py::TestInAModel::test_the_density_counts_the_gaps",),
    ),
    Mutant(
        "Kalman gain without the noise", "bayes_dasl/filtering/kalman.py",
        "total = variance + noise",
        "total = variance",
        ("tests/test_kalman.py::TestOrnsteinUhlenbeck::test_marginal_likelihood",),
    ),
    Mutant(
        "old data count twice in an update", "bayes_dasl/updating/taking_in.py",
        "log_weights = pushed.log_weight(problem.observed) - before",
        "log_weights = pushed.log_weight(problem.observed)",
        ("tests/test_update.py::test_a_few_data_are_taken_in_by_weights",),
    ),
    Mutant(
        "evidence of a sum, not of a mean", "bayes_dasl/engines/smc/tempering.py",
        "log_evidence=swarm.log_evidence + total - jnp.log(len(weight)),",
        "log_evidence=swarm.log_evidence + total,",
        ("tests/test_smc.py::test_a_conjugate_posterior_and_its_evidence[walk]",),
    ),
    Mutant(
        "weights of a guide against its volume", "bayes_dasl/engines/svi/svi.py",
        "ratio = lp - log_guide + log_det",
        "ratio = lp - log_guide - log_det",
        ("tests/test_svi.py::test_every_guide_agrees_with_a_conjugate_posterior[laplace]",),
    ),
    Mutant(
        "down the ELBO", "bayes_dasl/engines/svi/svi.py",
        "descent = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), -g, 0.0), slope)",
        "descent = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), slope)",
        ("tests/test_svi.py::test_a_fit_from_a_poor_start_becomes_the_normal_posterior[full_rank]",),
    ),
    Mutant(
        "a checkpoint knows nothing of its key", "bayes_dasl/fitting/fit_and_resume.py",
        '        "key": printable(key),\n        "posterior_sha256"',
        '        "posterior_sha256"',
        ("tests/test_resume.py::test_fit_refuses_the_checkpoint_of_another_engine_or_key",),
    ),
    Mutant(
        "a prior that makes no data has no remedy", "bayes_dasl/checking/checks.py",
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
    Mutant(
        "numbers of a hierarchy without their volume", "bayes_dasl/inference/sites.py",
        "log_det = jnp.sum(way.log_abs_det_jacobian(z, x))",
        "log_det = jnp.zeros(())",
        ("tests/test_unknowns.py",),
    ),
    Mutant(
        "linearised coordinates without the volume of the science", "bayes_dasl/inference/reparametrisations/linearised.py",
        "log_det = of_weights - jnp.sum(jnp.log(jnp.diag(first)))",
        "log_det = of_weights",
        ("tests/test_linearised.py::TestFrames",),
    ),
    Mutant(
        "weights without a step by the model itself", "bayes_dasl/inference/reparametrisations/linearised.py",
        "middle += jnp.where(usable, cho_solve((known, True), lacking), 0.0)",
        "middle += 0.0 * lacking",
        ("tests/test_linearised.py::TestFrames::test_one_step_of_the_model_itself_corrects_the_mean",),
    ),
    Mutant(
        "science that knows the weights", "bayes_dasl/inference/reparametrisations/linearised.py",
        "slopes = jnp.concatenate([linear.by_weights, linear.by_direct], axis=1)",
        "slopes = jnp.concatenate([0 * linear.by_weights, linear.by_direct], axis=1)",
        ("tests/test_linearised.py::TestFrames::test_of_a_linear_model_coordinates_are_standard_normal_given_hyperparameters",),
    ),
    Mutant(
        "weights of all directions in the step", "bayes_dasl/inference/reparametrisations/linearised.py",
        "known = jnp.where(informed[:, None] & informed, second, jnp.eye(number))",
        "known = second",
        ("tests/test_linearised.py::TestFrames::test_volumes_are_those_of_the_way",),
    ),
    Mutant(
        "standardised weights without their scale", "bayes_dasl/inference/reparametrisations/linearised.py",
        "of_weights = np.sum(np.log(self._sd[weights])) - jnp.sum(jnp.log(jnp.diag(lower)))",
        "of_weights = -jnp.sum(jnp.log(jnp.diag(lower)))",
        ("tests/test_linearised.py::TestFrames::test_volumes_are_those_of_the_way",),
    ),
    Mutant(
        "the order of the weights that suits positions least", "bayes_dasl/inference/reparametrisations/linearised.py",
        "if own < fewest:",
        "if own > fewest:",
        ("tests/test_linearised.py::TestFrames::test_what_data_say_little_of_comes_first_where_that_suits_positions",),
    ),
    Mutant(
        "slopes at the point without their volume", "bayes_dasl/inference/reparametrisations/linearised.py",
        "of_weights = np.sum(np.log(self._sd[weights])) - jnp.sum(jnp.log(jnp.diag(lower)))",
        "of_weights = np.sum(np.log(self._sd[weights])) - jnp.sum(jnp.log(jnp.diag(second)))",
        ("tests/test_linearised.py::TestFrames::test_volumes_are_those_of_the_way",),
    ),
    Mutant(
        "told directions by the slopes of the reference alone", "bayes_dasl/inference/reparametrisations/linearised.py",
        "if not self._slopes_there:",
        "if True:",
        ("tests/test_linearised.py::TestFrames::test_few_told_directions_follow_the_slopes_where_they_are",),
    ),
    Mutant(
        "weights that follow no values", "bayes_dasl/inference/reparametrisations/linearised.py",
        "given = jnp.where(fitted.follows_values, by_values, science)",
        "given = science",
        ("tests/test_linearised.py::TestFrames::test_weights_may_follow_the_values_of_the_science",),
    ),
    Mutant(
        "weights that follow values where numbers suit better", "bayes_dasl/inference/reparametrisations/linearised.py",
        "fitted, nats = self._better(positions, fitted, self._nats(fitted, positions), [by_values])",
        "fitted, nats = by_values, self._nats(fitted, positions)",
        ("tests/test_linearised.py::TestFrames::test_weights_follow_values_where_that_suits_positions",),
    ),
    Mutant(
        "a look at draws that raises and loses them", "bayes_dasl/fitting/groups.py",
        "        return look()\n    except Exception as error:",
        "        return look()\n    except KeyError as error:",
        ("tests/test_confounding.py::test_a_look_that_raises_after_the_sampling_costs_no_draws",),
    ),
    Mutant(
        "a process without its amplitude", "bayes_dasl/unknown_functions/bases/hilbert.py",
        "return self.scales * self.unscaled(x)",
        "return self.unscaled(x)",
        ("tests/test_basis.py",),
    ),
    Mutant(
        "partly centred coordinates without their volume", "bayes_dasl/inference/reparametrisations/centring.py",
        "log_det = log_det - jnp.sum(jnp.log(jnp.diagonal(lower)))",
        "log_det = log_det",
        ("tests/test_centring.py::TestFrame::test_there_and_back",),
    ),
    Mutant(
        "numbers of a member centred one by one", "bayes_dasl/inference/reparametrisations/centring.py",
        "if dims and path not in values.asked",
        "if not dims and path not in values.asked",
        ("tests/test_centring.py::TestFrame::test_what_data_say_of_the_numbers_of_a_member_together",),
    ),
    Mutant(
        "what data say of a member, twice as much", "bayes_dasl/inference/reparametrisations/centring.py",
        "return np.moveaxis(precision / (",
        "return np.moveaxis(2 * precision / (",
        ("tests/test_centring.py::TestFrame::test_what_data_say_is_the_precision_of_their_mean",),
    ),
    Mutant(
        "what a curvature says of a member, with its prior in it", "bayes_dasl/inference/reparametrisations/centring.py",
        "return gradients(x) - np.asarray(self._by_prior(x))",
        "return gradients(x)",
        ("tests/test_centring.py::TestStart::test_no_part_of_a_prior_is_taken_for_data",),
    ),
    Mutant(
        "climbs of a population that are not shaken", "bayes_dasl/inference/starts.py",
        "jnp.where(jitter, noise, 0.0)",
        "0.0 * noise",
        ("tests/test_centring.py::TestStart::test_noise_does_not_vanish_where_members_have_as_many_numbers_as_data",),
    ),
    Mutant(
        "members that are taken to go apart unseen", "bayes_dasl/inference/reparametrisations/centring.py",
        "> _APART * np.linalg.norm(along)",
        "> np.inf * np.linalg.norm(along)",
        ("tests/test_centring.py::TestStart::test_members_that_do_not_go_apart_are_nudged_one_by_one",),
    ),
    Mutant(
        "a shared number drawn wherever it stands", "bayes_dasl/random.py",
        "        if name not in known:\n",
        "        if True:\n",
        ("tests/test_unknowns.py",),
    ),
    Mutant(
        "an effect against its sign", "bayes_dasl/populations/population_and_varying.py",
        "return dist.LogNormal(jnp.log(center) + effect, spread)",
        "return dist.LogNormal(jnp.log(center) - effect, spread)",
        ("tests/test_population.py::TestEach::test_known_numbers_of_each_and_covariates",),
    ),
    Mutant(
        "members at each other's own times", "bayes_dasl/populations/each.py",
        "return OwnRows(np.maximum.accumulate(index, axis=0), own)",
        "return OwnRows(np.maximum.accumulate(index, axis=0)[:, ::-1], own)",
        ("tests/test_population.py::TestEach::test_solves_look_at_own_times_only",),
    ),
    Mutant(
        "the last datum of a member counts again", "bayes_dasl/data/layer_inputs.py",
        "jnp.where(own[v.ndim], self.of(v), jnp.nan)",
        "self.of(v)",
        ("tests/test_population.py::TestEach::test_solves_look_at_own_times_only",),
    ),
    Mutant(
        "known members drawn anew", "bayes_dasl/prediction/new_members.py",
        "known = np.asarray([member in position for member in members])",
        "known = np.zeros(len(members), bool)",
        ("tests/test_population.py::TestFit::test_members_that_the_fit_has_not_seen",),
    ),
    Mutant(
        "what stays the same in a loop is not seen", "bayes_dasl/_jax/compiling.py",
        "steady = [True] * constants + [False] * (len(inside.invars) - constants)",
        "steady = [False] * len(inside.invars)",
        ("tests/test_compiling.py",),
    ),
    Mutant(
        "residuals pushed the wrong way by a link", "bayes_dasl/inference/linear_residuals.py",
        "/ by_link\n", "* by_link\n",
        ("tests/test_linear_residuals.py",),
    ),
    Mutant(
        "a correction twice as large as is said", "bayes_dasl/hybrid/correction.py",
        "dist.HalfCauchy(share / _SELDOM)", "dist.HalfCauchy(2 * share / _SELDOM)",
        ("tests/test_corrected.py::test_it_is_seldom_more_than_its_share_of_the_rates",),
    ),
    Mutant(
        "relative corrections in units of whole rates", "bayes_dasl/hybrid/correction.py",
        "return found / jnp.stack([point[name] for name in outputs]) if relative else found", "return found",
        ("tests/test_corrected.py",),
    ),
    Mutant(
        "a network that does not fade", "bayes_dasl/networks/network.py",
        "out = out / (1 + (square / _FADED**2) ** 4)", "out = out / (1 + 0 * square)",
        ("tests/test_networks.py::test_what_fades_goes_to_zero_far_from_its_inputs",),
    ),
    Mutant(
        "a solver may change standard deviations", "bayes_dasl/updating/solver_check.py",
        "moved = np.maximum(np.abs(mean - some.mean(axis=0)), np.abs(deviation - "
        "some.std(axis=0)))",
        "moved = np.abs(mean - some.mean(axis=0))",
        ("tests/test_solver_check.py::test_a_standard_deviation_that_changes_is_a_shift_too",),
    ),
    Mutant(
        "a lead of one standard error is no chance", "bayes_dasl/weighting/judged_mixtures.py",
        "_CHANCE = 2.0  # standard errors",
        "_CHANCE = 1.0  # standard errors",
        ("tests/test_mixed_study.py::test_a_lead_of_two_standard_errors_is_no_chance",),
    ),
    Mutant(
        "stacking without its prior", "bayes_dasl/weighting/comparison.py",
        "new = (1 + windows * (part / part.sum(axis=0)).mean(axis=1)) / (number + windows)",
        "new = (part / part.sum(axis=0)).mean(axis=1)",
        ("tests/test_compare.py",),
    ),
    Mutant(
        "windows that overlap taken for independent", "bayes_dasl/weighting/comparison.py",
        "return float(len(shared) ** 2 / shared.sum()) if len(shared) else 0.0", "return "
            "float(len(shared))",
        ("tests/test_compare.py",),
    ),
    Mutant(
        "few windows as sure as many", "bayes_dasl/weighting/comparison.py",
        "return float(stdtrit(windows - 1, 0.5 + _SURE / 2)) if windows > 1 else np.inf",
        "return 2.0 if windows > 1 else np.inf",
        ("tests/test_compare.py",),
    ),
    Mutant(
        "one error too few for a quantile", "bayes_dasl/recalibration/conformal.py",
        "return np.interp(levels + (levels - 0.5) / number, below, values)", "return "
            "np.interp(levels, below, values)",
        ("tests/test_recalibration.py",),
    ),
    Mutant(
        "old errors count twice as long", "bayes_dasl/recalibration/past_errors.py",
        "0.5 ** (age / half_life)", "0.5 ** (age / (2 * half_life))",
        ("tests/test_recalibration.py",),
    ),
    Mutant(
        "a forecast that knows its window", "bayes_dasl/weighting/weights_by_future_left_out.py",
        "seen = xr.DataArray(np.arange(self.data.sizes[index]) < rows, dims=index)",
        "seen = xr.DataArray(np.arange(self.data.sizes[index]) <= rows, dims=index)",
        ("tests/test_leave_future_out.py",),
    ),
    Mutant(
        "finer functions at no price", "bayes_dasl/_statistics/variance_component.py",
        "price = np.array([np.sum(np.log1p(v * eigenvalues)) for v in variances])", "price = "
            "np.zeros(len(variances))",
        ("tests/test_function_check.py",),
    ),
    Mutant(
        "noise on states that does not know how long a step is", "bayes_dasl/layers/process_noise.py",
        "root = math.sqrt(self.step)", "root = 1.0",
        ("tests/test_process_noise.py",),
    ),
    Mutant(
        "a Bayes factor for the prior's width alone", "bayes_dasl/weighting/bayes_factor.py",
        "expected = beside.mean(axis=0).prod()", "expected = 1.0",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "all models as probable before the data", "bayes_dasl/weighting/bayes_factor.py",
        "0.5 if name == base else 0.5 / (len(models) - 1)", "1 / len(models)",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "data that stay in the program", "bayes_dasl/_jax/trace.py",
        "kept = [jnp.ndim(c) == 0 and not scalars for c in closed.consts]",
        "kept = [True for c in closed.consts]",
        ("tests/test_compiling.py", "tests/test_gradient.py"),
    ),
    Mutant(
        "a forecast of what a window does not hold", "bayes_dasl/weighting/window_densities.py",
        "values[: window.known], values[window.end :] = np.nan, np.nan", "values[: window.known] = "
            "np.nan",
        ("tests/test_leave_future_out.py",),
    ),
)  # fmt: skip
