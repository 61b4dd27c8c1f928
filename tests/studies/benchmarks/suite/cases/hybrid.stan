functions {
  vector rates(real t, vector y, vector rate, matrix weight_1, vector bias_1, matrix weight_2, vector bias_2,
               vector centre, vector width, real scale_of_closure) {
    vector[4] hidden = tanh(weight_1 * ((y - centre) ./ width) + bias_1);
    vector[2] closure = scale_of_closure * (weight_2 * hidden + bias_2);
    vector[2] science = [rate[1] - rate[2] * y[2], rate[4] * y[1] - rate[3]]';
    return y .* (science + closure);
  }
}
data {
  int n;
  array[n + 1] vector[2] pelts;
  array[4] vector[2] prior; // location and scale of each log-normal
  vector[2] first;
  vector[2] centre;
  vector[2] width;
  real scale_of_closure;
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
  matrix[4, 2] weight_1;
  vector[4] bias_1;
  matrix[2, 4] weight_2;
  vector[2] bias_2;
}
transformed parameters {
  vector[n + 1] hare_median;
  vector[n + 1] lynx_median;
  {
    array[n] vector[2] y = ode_rk45_tol(rates, [hare_start, lynx_start]', 0.0, ts, rtol, atol, max_steps,
                                        [birth, predation, death, growth]', weight_1, bias_1, weight_2, bias_2,
                                        centre, width, scale_of_closure);
    hare_median[1] = hare_start;
    lynx_median[1] = lynx_start;
    for (i in 1:n) {
      hare_median[i + 1] = fmax(y[i][1], 1e-12);
      lynx_median[i + 1] = fmax(y[i][2], 1e-12);
    }
  }
}
model {
  birth ~ lognormal(prior[1][1], prior[1][2]);
  predation ~ lognormal(prior[2][1], prior[2][2]);
  death ~ lognormal(prior[3][1], prior[3][2]);
  growth ~ lognormal(prior[4][1], prior[4][2]);
  hare_start ~ lognormal(first[1], 0.5);
  lynx_start ~ lognormal(first[2], 0.5);
  [hare_scale, lynx_scale] ~ lognormal(-1, 1);
  to_vector(weight_1) ~ normal(0, sqrt(0.5));
  bias_1 ~ normal(0, 1);
  to_vector(weight_2) ~ normal(0, 0.5);
  bias_2 ~ normal(0, 1);
  pelts[, 1] ~ lognormal(log(hare_median), hare_scale);
  pelts[, 2] ~ lognormal(log(lynx_median), lynx_scale);
}
