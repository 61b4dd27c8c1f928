functions {
  vector rates(real t, vector y, real absorption, real elimination) {
    real taken = absorption * y[1];
    return [-taken, taken - elimination * y[2]]';
  }
}
data {
  int n;
  int subjects;
  array[subjects, n] real ts; // the first may be 0, when nothing has been taken up
  array[subjects, n] real y;
  vector[subjects] dose;
  vector[3] means;
  array[3] int not_centred;
  real rtol;
  real atol;
  int max_steps;
}
parameters {
  real absorption_mean;
  real elimination_mean;
  real clearance_mean;
  real<lower=0> absorption_spread;
  real<lower=0> elimination_spread;
  real<lower=0> clearance_spread;
  vector<offset=not_centred[1] * absorption_mean, multiplier=(not_centred[1] ? absorption_spread : 1)>[subjects] absorption;
  vector<offset=not_centred[2] * elimination_mean, multiplier=(not_centred[2] ? elimination_spread : 1)>[subjects] elimination;
  vector<offset=not_centred[3] * clearance_mean, multiplier=(not_centred[3] ? clearance_spread : 1)>[subjects] clearance;
  real<lower=0> scale;
}
model {
  [absorption_mean, elimination_mean, clearance_mean]' ~ normal(means, 1);
  [absorption_spread, elimination_spread, clearance_spread] ~ normal(0, 1);
  absorption ~ normal(absorption_mean, absorption_spread);
  elimination ~ normal(elimination_mean, elimination_spread);
  clearance ~ normal(clearance_mean, clearance_spread);
  scale ~ normal(0, 2);
  for (s in 1:subjects) {
    real ka = exp(absorption[s]);
    real ke = exp(elimination[s]);
    int first = ts[s, 1] > 0 ? 1 : 2;
    array[n - first + 1] vector[2] states =
      ode_rk45_tol(rates, [dose[s], 0]', 0.0, ts[s, first:n], rtol, atol, max_steps, ka, ke);
    if (first == 2) y[s, 1] ~ normal(0, scale);
    for (i in first:n)
      y[s, i] ~ normal(states[i - first + 1][2] * exp(elimination[s] - clearance[s]), scale);
  }
}
