data {
  int n;
  int subjects;
  array[subjects] vector[n] ts;
  array[subjects] vector[n] y;
  vector[subjects] dose;
  vector[3] means;
  array[3] int not_centred;
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
    real height = dose[s] * ka * exp(elimination[s] - clearance[s]) / (ka - ke);
    y[s] ~ normal(height * (exp(-ke * ts[s]) - exp(-ka * ts[s])), scale);
  }
}
