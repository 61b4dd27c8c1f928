functions {
  vector rates(real t, vector y, real contact, real recovery, real boys) {
    real infection = contact * y[1] * y[2] / boys;
    return [-infection, infection - recovery * y[2]]';
  }
}
data {
  int n;
  array[n + 1] int in_bed;
  real boys;
  array[4] vector[2] prior; // location and scale of each log-normal
  real rtol;
  real atol;
  int max_steps;
}
transformed data {
  array[n] real ts;
  for (i in 1:n) ts[i] = i;
}
parameters {
  real<lower=0> contact;
  real<lower=0> recovery;
  real<lower=0> infected_start;
  real<lower=0> concentration;
}
model {
  vector[2] start = [boys - 1, infected_start]';
  array[n] vector[2] y = ode_rk45_tol(rates, start, 0.0, ts, rtol, atol, max_steps, contact, recovery, boys);
  contact ~ lognormal(prior[1][1], prior[1][2]);
  recovery ~ lognormal(prior[2][1], prior[2][2]);
  infected_start ~ lognormal(prior[3][1], prior[3][2]);
  concentration ~ lognormal(prior[4][1], prior[4][2]);
  in_bed[1] ~ neg_binomial_2(infected_start, concentration);
  for (i in 1:n) in_bed[i + 1] ~ neg_binomial_2(fmax(y[i][2], 1e-12), concentration);
}
