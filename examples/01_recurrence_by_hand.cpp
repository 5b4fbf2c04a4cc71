// Example 1: the recurrence by hand.
//
// Softmax attention keeps every past token. ReGLA keeps one small matrix S [K, V] per head, which
// each token decays, writes to and reads from (Eq. 15 of the paper, its state transposed):
//
//     S_t[i,j] = F_t[j] S_{t-1}[i,j] + k_t[i] v_t[j]         forget, then write
//     o_t[j]   = sum_i q_t[i] S_t[i,j]                       read
//
// The forget gate F refines a sigmoid gate g by a second one, r (Eq. 16):
//
//     F = (1-r) g^2 + r (1 - (1-g)^2)
//
// No tensors yet: one head with K = V = 2, four tokens, the function that every other form of this
// library is measured against.

#include <array>
#include <cmath>
#include <cstdio>
#include <vector>

#include "core/recurrences/linear_attention.h"

using Pair = std::array<double, 2>;

struct Token {
  const char* what;
  Pair q, k, v;
  Pair F;  // one gate per value column
};

double refined_gate(double g, double r) { return (1 - r) * g * g + r * (1 - (1 - g) * (1 - g)); }

// Unrolled, the recurrence is an attention without softmax, in which the token t sees the token s
// through all the gates between them:
//
//     o_t[j] = sum_{s <= t} (q_t k_s) (product of F_r[j] for r = s+1..t) v_s[j]
Pair attention_form(const std::vector<Token>& tokens, size_t t) {
  Pair o = {0, 0};
  for (size_t s = 0; s <= t; ++s) {
    const double score = tokens[t].q[0] * tokens[s].k[0] + tokens[t].q[1] * tokens[s].k[1];
    for (size_t j = 0; j < 2; ++j) {
      double decay = 1;
      for (size_t r = s + 1; r <= t; ++r) decay *= tokens[r].F[j];
      o[j] += score * decay * tokens[s].v[j];
    }
  }
  return o;
}

int main() {
  const std::vector<Token> tokens = {
      {"write (1,2) under key (1,0), read it back", {1, 0}, {1, 0}, {1, 2}, {1, 1}},
      {"write (3,4) under key (0,1), read key (1,0)", {1, 0}, {0, 1}, {3, 4}, {1, 1}},
      {"forget half of value 0, write nothing, read both keys", {1, 1}, {0, 0}, {0, 0}, {0.5, 1}},
      {"a gate of 0 forgets everything, then write (5,6)", {1, 1}, {1, 0}, {5, 6}, {0, 0}}};

  double worst = 0;
  using regla::recurrence::LinearAttention;
  const Pair ones = {1, 1};      // no decay of features
  std::array<double, 4> S = {};  // [K, V]
  for (size_t t = 0; t < tokens.size(); ++t) {
    const Token& x = tokens[t];
    Pair o;
    LinearAttention::step({.K = 2, .V = 2, .pitch = 2},
                          {.q = x.q.data(),
                           .k = x.k.data(),
                           .a = ones.data(),
                           .u = x.v.data(),
                           .b = x.F.data(),
                           .s = 1},
                          S.data(), o.data());
    std::printf("t=%zu  %s\n     S = [%g %g; %g %g]   o = (%g, %g)\n", t + 1, x.what, S[0], S[1],
                S[2], S[3], o[0], o[1]);
    const Pair expected = attention_form(tokens, t);
    for (size_t j = 0; j < 2; ++j) worst = std::fmax(worst, std::fabs(o[j] - expected[j]));
  }
  std::printf("\nrecurrence against attention form: largest difference %g\n", worst);

  // r moves F between g^2 and 1 - (1-g)^2, and r = 1/2 is the plain gate. Where g is close to 0 or
  // 1 and learns slowly, r can double its gradient: dF/dg = 2 ((1-r) g + r (1-g)).
  std::printf("\n     g    F(r=0)  F(r=1/2)    F(r=1)\n");
  for (const double g : {0.1, 0.5, 0.9}) {
    std::printf("%6.2f%10.2f%10.2f%10.2f\n", g, refined_gate(g, 0), refined_gate(g, 0.5),
                refined_gate(g, 1));
    worst = std::fmax(worst, std::fabs(refined_gate(g, 0.5) - g));
  }
  return worst < 1e-12 ? 0 : 1;
}
