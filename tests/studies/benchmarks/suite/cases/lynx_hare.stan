// posteriordb's hudson_lynx_hare-lotka_volterra, with the current ODE interface.
functions {
  vector rates(real t, vector y, real birth, real predation, real death, real growth) {
    return [y[1] * (birth - predation * y[2]), y[2] * (growth * y[1] - death)]';
  }
}
data {
  int n;
  array[n + 1] vector[2] pelts;
  real rtol;
  real atol;
  int max_steps;
}
transformed data {
  array[n] real ts;
  for (i in 1:n) ts[i] = i;
}
parameters {
  real<lower=0> birth;
  real<lower=0> predation;
  real<lower=0> death;
  real<lower=0> growth;
  real<lower=0> hare_start;
  real<lower=0> lynx_start;
  real<lower=0> hare_scale;
  real<lower=0> lynx_scale;
}
model {
  vector[2] start = [hare_start, lynx_start]';
  vector[2] scale = [hare_scale, lynx_scale]';
  array[n] vector[2] y = ode_rk45_tol(rates, start, 0.0, ts, rtol, atol, max_steps, birth, predation, death, growth);
  [birth, death] ~ normal(1, 0.5);
  [predation, growth] ~ normal(0.05, 0.05);
  start ~ lognormal(log(10), 1);
  scale ~ lognormal(-1, 1);
  pelts[1] ~ lognormal(log(start), scale);
  for (i in 1:n) pelts[i + 1] ~ lognormal(log(fmax(y[i], 1e-12)), scale);
}
