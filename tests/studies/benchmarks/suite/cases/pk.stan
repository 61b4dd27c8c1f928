functions {
  vector rates(real t, vector y, real absorption, real elimination, real volume) {
    real absorbed = absorption * y[1];
    return [-absorbed, absorbed / volume - elimination * y[2]]';
  }
}
data {
  int n;
  array[n] real ts;
  int subjects;
  vector[subjects] dose;
  array[n, subjects] real y; // -1 where a sample is missing
  vector[3] means;
  real rtol;
  real atol;
  int max_steps;
}
parameters {
  real absorption;
  real elimination;
  real volume;
  real<lower=0> absorption_spread;
  real<lower=0> elimination_spread;
  real<lower=0> volume_spread;
  real<lower=0> scale;
  vector[subjects] absorption_effect;
  vector[subjects] elimination_effect;
  vector[subjects] volume_effect;
}
model {
  vector[subjects] ka = exp(absorption + absorption_spread * absorption_effect);
  vector[subjects] ke = exp(elimination + elimination_spread * elimination_effect);
  vector[subjects] v = exp(volume + volume_spread * volume_effect);
  [absorption, elimination, volume]' ~ normal(means, 0.5);
  [absorption_spread, elimination_spread, volume_spread] ~ normal(0, 0.5);
  scale ~ lognormal(log(0.1), 0.5);
  absorption_effect ~ std_normal();
  elimination_effect ~ std_normal();
  volume_effect ~ std_normal();
  for (s in 1:subjects) {
    array[n] vector[2] states = ode_rk45_tol(rates, [dose[s], 0]', 0.0, ts, rtol, atol, max_steps, ka[s], ke[s], v[s]);
    for (i in 1:n)
      if (y[i, s] > 0) y[i, s] ~ lognormal(log(fmax(states[i][2], 1e-12)), scale);
  }
}
