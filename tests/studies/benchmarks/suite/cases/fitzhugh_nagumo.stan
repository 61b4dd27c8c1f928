functions {
  vector rates(real t, vector y, real a, real b, real rate, real current) {
    return [y[1] - 0.33 * y[1] ^ 3 - y[2] + current, rate * (y[1] + a - b * y[2])]';
  }
}
data {
  int n;
  array[n] real ts;
  array[n] vector[2] y;
  real rtol;
  real atol;
  int max_steps;
}
parameters {
  real<lower=0, upper=1.5> a;
  real<lower=0, upper=1.5> b;
  real<lower=0, upper=0.5> rate;
  real<lower=0, upper=1> current;
  real<lower=0> v_scale;
  real<lower=0> w_scale;
}
model {
  vector[2] scale = [v_scale, w_scale]';
  array[n] vector[2] states = ode_rk45_tol(rates, rep_vector(1.0, 2), 0.0, ts, rtol, atol, max_steps,
                                           a, b, rate, current);
  [a, b] ~ normal(1, 0.5);
  rate ~ normal(0, 0.5);
  current ~ normal(0.5, 0.5);
  scale ~ inv_gamma(2, 3);
  for (i in 1:n) y[i] ~ normal(states[i], scale);
}
