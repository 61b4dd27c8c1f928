functions {
  vector rates(real t, vector y, real slow, real pair, real back) {
    real one = slow * y[1] - back * y[2] * y[3];
    real two = pair * y[2] ^ 2;
    return [-one, 1e4 * (one - two), two]';
  }
}
data {
  int n;
  array[n] real ts;
  array[n] vector[3] y;
  real rtol;
  real atol;
  int max_steps;
}
parameters {
  real<lower=0> slow;
  real<lower=0> pair;
  real<lower=0> back;
  real<lower=0> scale;
}
model {
  array[n] vector[3] states = ode_bdf_tol(rates, [1, 0, 0]', 0.0, ts, rtol, atol, max_steps, slow, pair, back);
  slow ~ lognormal(log(0.04), 0.5);
  pair ~ lognormal(log(0.3), 0.5);
  back ~ lognormal(log(1.0), 0.5);
  scale ~ lognormal(log(0.1), 0.5);
  for (i in 1:n) y[i] ~ lognormal(log(fmax(states[i], 1e-12)), scale);
}
