#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "backends/kernel.h"
#include "backends/maximum.h"
#include "backends/rotation.h"
#include "backends/sink.h"
#include "core/tensor.h"

// Everything a backend may implement, on one page. Sizes: B batch, T time, H heads, K features of a
// head, V values of a head, R rows (all outer axes together), N the inner axis. Kernels trust their
// arguments; ops check them, but for the values of ids, targets and first keys: the CPU's kernels
// look at those, and for other devices whoever brings them there does, on the host (Decoder::ids).
// A result that a kernel shapes itself (`kept`) is written where it is, once it is there.
//
// Types: norms narrow, additions widen. Beside its name each kernel has a letter for every tensor
// among its arguments, in their order, members of structs included:
//   A  the type of activations: F32, BF16 or F64 (for tests)
//   S  the type of sums: F32 where A is BF16, else A
//   *  A or S, as the caller likes. Gradients have the type of their value, but S where several
//      are added up, and for parameters
//   W  A, or a weight stored in BF16 beside activations in F32, where nobody wants a gradient
//   D  F64      I  I32      -  any type, or what only the backend reads
// The elements of a list have the same letters. A small letter is a tensor of the arguments that is
// updated in place. At F32 and F64 A and S are the same type.

namespace regla {

/// out = op(a) op(b) (+ bias on every row)
struct MatmulArgs {
  Tensor a;     // [M, K], or [K, M] when transpose_a
  Tensor b;     // [K, N], or [N, K] when transpose_b
  Tensor bias;  // [N] or undefined; of the type of out, as every product's bias
  bool transpose_a = false;
  bool transpose_b = false;
};

/// The gradients of y_i = x W_i^T + b_i, for all i that read the same x:
///   d_x = sum_i d_y_i W_i      d_W_i = d_y_i^T x      d_b_i = sum over rows of d_y_i
struct LinearGradients {
  struct Part {
    Tensor d_y;             // [R, N_i], or undefined: it lies in `side_by_side`
    Tensor weight;          // [N_i, D]
    Sink d_weight, d_bias;  // out
  };
  Tensor x;                  // [R, D]
  Tensor side_by_side = {};  // [R, sum of all N_i], columns in the order of the parts, or undefined
  std::vector<Part> parts;
};

enum class Activation { None, Gelu, TanhGelu };

/// y_i = f(x' W_i^T + b_i) (+ residual), for all i that read the same x, one row for each sequence
/// that is decoded. x' is x, or its LayerNorm where there is a gain.
struct LinearStepArgs {
  struct Part {
    Tensor weight;  // [N_i, D]
    Tensor bias;    // [N_i] or undefined; A where f or the residual follows, else as y
    Tensor y;       // out, [R, N_i]
  };
  Tensor x;           // [R, D]
  Tensor gain, bias;  // [D], of the norm, or undefined
  double epsilon;
  Tensor residual;  // [R, N] or undefined; beside one part
  std::vector<Part> parts;
  Activation activation;
  DType type;  // A: what norm, activation and what a residual is added to give
};

/// y = (x - mean) / sqrt(var + epsilon) * gain + bias over the inner axis; without `center` the
/// mean is taken as 0, which is RMSNorm. Row r uses row r mod G of gain and bias.
struct NormArgs {
  Tensor x;     // [R, N]
  Tensor gain;  // [G, N]
  Tensor bias;  // [G, N] or undefined
  double epsilon;
  bool center;
};

struct RopeArgs {
  Tensor x;  // [B, T, H, K]
  Rotation rotation;
  bool inverse;  // turn back: the backward pass
};

/// y = x / (1 - rate) where a Philox draw keeps the element, 0 elsewhere (+ residual). Element i of
/// x is number `first + i` of stream (seed, step * 65536 + place), so that a part of a batch draws
/// what the whole would.
struct DropoutArgs {
  Tensor x;
  Tensor residual;  // like x, or undefined
  Tensor step;      // [1] I32, or undefined (0)
  double rate;
  uint64_t seed, place;
  int64_t first;
};

/// What dropout_norm gives beside the sum, and what its gradients are.
struct DropoutNormResult {
  Tensor y;              // [R, N]
  Tensor mean, inverse;  // [R]
  Tensor kept;           // the mask, as the backend likes it; undefined where it is drawn again
};
struct DropoutNormGradients {
  Tensor d_y;  // in
  Sink d_sum;  // out: of the sum, which is that of the residual, too
  Tensor d_x;  // out, [R, N] or undefined
  Sink d_gain, d_bias;
};

/// Cross-entropy of softmax(hidden weight^T) against targets, in slices of rows: the full logits
/// never exist.
struct CrossEntropyArgs {
  Tensor hidden;   // [R, D]
  Tensor weight;   // [vocab, D]
  Tensor targets;  // [R] I32; -1: this row does not count
  double scale;    // of the gradients: 1 / (rows that count) for a mean
};

/// temperature^2 KL(p || q) of softmax distributions over the vocabulary, q that of hidden weight^T
/// / temperature and p the teacher's, in slices of rows: the full logits of neither ever exist.
struct DistillationArgs {
  Tensor hidden;          // [R, D]
  Tensor weight;          // [vocab, D]
  Tensor teacher_hidden;  // [R, E]
  Tensor teacher_weight;  // [vocab, E]
  Tensor targets;         // [R] I32; -1: this row does not count
  double temperature;
  double scale;  // as of CrossEntropyArgs
};

/// phi(z) = scale * exp(z - m) (ReGLA Eq. 11-12), of z as it is once it was turned
struct SafeExpArgs {
  Tensor z;  // [B, T, H, K]
  Rotation rotation;
  Tensor m0;     // [B, H] or undefined; -infinity where nothing was seen yet
  Tensor reset;  // [B, T] I32 or undefined: 1 forgets what came before this token
  Maximum maximum;
  double scale;
};
struct SafeExpResult {
  Tensor features;  // [B, T, H, K]
  Tensor log_rho;   // [B, T, H]; undefined for Token
  Tensor m;         // [B, H] after the last token; undefined for Token
  Tensor argmax;    // [B, T, H] I32: for the backward pass, what attains m_t (see safe_exp.cpp)
};

/// y[r, h, f] = sum_n weight[h F + f, n] x[r, h, n] (+ bias[h F + f]): a matrix of its own per
/// head.
struct HeadLinearArgs {
  Tensor x;       // [R, H, N]
  Tensor weight;  // [H F, N]
  Tensor bias;    // [H F] or undefined; of the type of y
};

/// The recurrence (docs/math.md, "The recurrence"), per head:
///   S_t[i,j] = a_t[i] b_t[j] s_t S_{t-1}[i,j] + k_t[i] u_t[j]      o_t[j] = sum_i q_t[i] S_t[i,j]
struct LinearAttentionArgs {
  Tensor q, k;   // [B, T, H, K]
  Tensor u;      // [B, T, H, V]: what is written
  Tensor log_a;  // [B, T, H, K] decay on the key axis, or undefined (1)
  Tensor log_b;  // [B, T, H, V] decay on the value axis, or undefined (1)
  Tensor log_s;  // [B, T, H] scalar decay, or undefined (1)
  Tensor reset;  // [B, T] I32 or undefined: 1 empties the state before this token
  Tensor state;  // [B, H, K, V] before the first token, or undefined (0)
  int64_t chunk;
  bool keep;  // whether a backward pass follows
};
/// What either recurrence gives.
struct RecurrenceResult {
  Tensor o;      // [B, T, H, V]
  Tensor state;  // [B, H, K, V] after the last token
  Tensor kept;   // states on the way, as the backend likes them; undefined without `keep`
};
struct LinearAttentionGradients {
  Tensor d_o, d_state;                                      // in; d_state may be undefined
  Sink d_q, d_k, d_u, d_log_a, d_log_b, d_log_s, d_state0;  // out
};

/// One token of ReGLA, from its projections to its output product:
///   q = scale safe_exp(z_q)   k, log rho = safe_exp(z_k)   log F = refined_gate(z_g, z_r)
///   o = the recurrence's, with decays F and rho            y = norm(o) * swish(z_o)
struct ReglaStepArgs {
  Tensor z_q, z_k;    // [B, 1, H, K] before they turn
  Tensor v;           // [B, 1, H, V]
  Tensor z_g, z_r;    // [B, 1, H, V]
  Tensor z_o;         // [B, 1, H, V], or undefined: no output gate
  Rotation rotation;  // at the token's position
  double scale;
  Tensor gain;  // [H, V], or undefined: no norm
  double epsilon;
  bool center;   // as NormArgs
  Tensor m;      // [B, H]: the maximum so far
  Tensor state;  // [B, H, K, V]
};

/// The delta rule (Eq. 8), per head:
///   S_t = S_{t-1} - g_t k_t (k_t^T S_{t-1}) + g_t k_t v_t^T      o_t = S_t^T q_t
struct DeltaRuleArgs {
  Tensor q, k;   // [B, T, H, K]
  Tensor v;      // [B, T, H, V]
  Tensor g;      // [B, T, H] write strength
  Tensor reset;  // [B, T] I32 or undefined: 1 empties the state before this token
  Tensor state;  // [B, H, K, V] before the first token, or undefined (0)
  int64_t chunk;
  bool keep;  // whether a backward pass follows
};
struct DeltaRuleGradients {
  Tensor d_o, d_state;                // in; d_state may be undefined
  Sink d_q, d_k, d_v, d_g, d_state0;  // out
};

/// Causal softmax attention (Eq. 1). The last T keys belong to the queries, those before to the
/// past. Query t sees keys s with s <= S - T + t, s > S - T + t - window and s >= first[b, t].
struct SoftmaxAttentionArgs {
  Tensor q;        // [B, T, H, K]
  Tensor k, v;     // [B, S, H, K or V]
  Tensor first;    // [B, T] I32 or undefined (0)
  int64_t window;  // 0: no limit
  double scale;
};

/// The same for the token that follows those in a cache, where query and key turn first: its key
/// and value become entry `used`.
struct SoftmaxAttentionStepArgs {
  Tensor q, k;          // [B, 1, H, K] before they turn
  Tensor v;             // [B, 1, H, V]
  Tensor keys, values;  // [B, capacity > used, H, K or V]
  Tensor used;          // [1] I32: entries in use
  Rotation rotation;    // as many entries before it as its position says are seen by the token
  int64_t window;       // 0: no limit
  double scale;
};

/// One AdamW step (Loshchilov and Hutter 2019) of many weights, gradients scaled first:
///   m = beta1 m + (1-beta1) g;  v = beta2 v + (1-beta2) g^2
///   w -= rate * (m / correction1 / (sqrt(v / correction2) + epsilon) + decay * w)
struct AdamWArgs {
  struct Weight {
    Tensor value, gradient, m, v;
    Tensor copy;  // like value, in BF16: the new value rounded; or undefined
    double decay;
  };
  std::vector<Weight> weights;
  Tensor rates;   // [3] F64: rate, correction1, correction2
  Tensor factor;  // [1] F64 that scales the gradients; 0: all stays as it is
  double beta1, beta2, epsilon;
};

/// The scores of ids that were seen become less probable: those above 0 are divided by the penalty,
/// the others multiplied (Keskar et al. 2019, section 4.1).
struct PenaliseArgs {
  Tensor scores;   // [B, vocab]
  Tensor ids;      // [B] I32, which are seen from now on, or undefined; below 0: none
  Tensor seen;     // [B, vocab] I32, 1 for an id that was seen, else 0: updated in place
  double penalty;  // 1: scores stay as they are
};

/// A draw from each row of scores, by number `draw` of the row's stream (seed, first_row + row): it
/// depends on nothing that was drawn before. Among equal scores the lower id comes first.
struct SampleArgs {
  Tensor scores;       // [B, vocab]
  Tensor draw;         // [1] I32
  double temperature;  // divides the scores; 0: always the highest
  int64_t top_k;       // only the so many most probable; 0: all
  double top_p;        // of those, the most probable that together reach this probability
  double min_p;        // of those, the ones at least so many times as probable as the first; 0: all
  uint64_t seed;
  int64_t vocab;  // ids from here on are never drawn; 0: all may be
  int64_t first_row = 0;

  /// The least that a score may be above the highest for min_p.
  double least_lead() const {
    return min_p > 0 ? temperature * std::log(min_p) : -std::numeric_limits<double>::infinity();
  }
};

/// Rows [begin, begin + count) of the second axis of `from` become those at `at` of `to`.
struct CopyRowsArgs {
  Tensor from;  // [B, S, N]
  int64_t begin, count;
  Tensor to;  // [B, S', N], of the same type
  int64_t at;
};

struct KernelTable {
  const char* backend = "";
  // linear_backward reads d_y that lie side by side where they are BF16 and all sizes multiples of
  // this; 0: nowhere. Kernels of a RowsSink are then given one that lies so.
  int64_t side_by_side = 0;

  Kernel<"convert", "- -", void(const Tensor& x, Tensor y)>
      convert;  // between any two types, rounding
  Kernel<"copy_rows", "- -", void(const CopyRowsArgs&)> copy_rows;
  // row number row[0] of to = from; row [1] I32, from [N], to [R, N], of one type
  Kernel<"put_row", "I - -", void(const Tensor& row, const Tensor& from, Tensor to)> put_row;
  // out (+)= scale * x;  out = a + b
  Kernel<"accumulate", "* *", void(const Tensor& x, double scale, Sink out)> accumulate;
  Kernel<"add", "* * S", void(const Tensor& a, const Tensor& b, Tensor out)> add;
  // out (+)= factor[0] x, the factor [1] F64
  Kernel<"scale_by", "* D *", void(const Tensor& x, const Tensor& factor, Sink out)> scale_by;
  // total[0] = scale * (sum of x, in order), [1] F64
  Kernel<"sum", "S D", void(const Tensor& x, double scale, Tensor total)> sum;
  Kernel<"matmul", "A W * *", void(const MatmulArgs&, Sink out)> matmul;
  // d_x [R, D]; operands of its products are rounded to A, and it once more
  Kernel<"linear_backward", "A A * A * S *", void(const LinearGradients&, Sink d_x)>
      linear_backward;
  Kernel<"linear_step", "* S S S W * *", void(const LinearStepArgs&)> linear_step;
  Kernel<"column_sums", "* S", void(const Tensor& x, Sink sums)> column_sums;  // [R, N] -> [N]

  Kernel<"norm", "* S S A S S", void(const NormArgs&, Tensor y, Tensor mean, Tensor inverse)> norm;
  Kernel<"norm_backward", "* S S S S A * S S",
         void(const NormArgs&, const Tensor& mean, const Tensor& inverse, const Tensor& d_y,
              Sink d_x, Sink d_gain, Sink d_bias)>
      norm_backward;
  Kernel<"gelu", "A A", void(const Tensor& x, bool tanh, Tensor y)> gelu;
  Kernel<"gelu_backward", "A A * S",
         void(const Tensor& x, bool tanh, const Tensor& d_y, const LinearSink& d_x)>
      gelu_backward;
  Kernel<"softmax", "* A", void(const Tensor& x, Tensor y)> softmax;
  Kernel<"softmax_backward", "A A *", void(const Tensor& y, const Tensor& d_y, Sink d_x)>
      softmax_backward;
  Kernel<"embedding", "I W S", void(const Tensor& ids, const Tensor& table, Tensor y)> embedding;
  Kernel<"embedding_backward", "I S S", void(const Tensor& ids, const Tensor& d_y, Sink d_table)>
      embedding_backward;
  // positions [B, T] I32 of tokens that begin at start [B] (undefined: 0), and at 0 again where
  // reset [B, T] (undefined: nowhere) is 1; next [B] is the position after them, maybe in start
  Kernel<"positions", "I I I I",
         void(const Tensor& start, const Tensor& reset, Tensor positions, Tensor next)>
      positions;
  // first[b, t] = max(0, past + t - positions[b, t]): where the document of token t begins among
  // the keys, of which `past` lie before token 0
  Kernel<"first_keys", "I I", void(const Tensor& positions, int64_t past, Tensor first)> first_keys;
  Kernel<"rope", "* I *", void(const RopeArgs&, Sink y)> rope;
  Kernel<"dropout", "* S I *", void(const DropoutArgs&, Sink y)> dropout;
  // norm.x = drop.residual + dropout of drop.x, y = its norm; backward reads no y
  Kernel<"dropout_norm", "A S I S S S A S S -",
         void(const DropoutArgs& drop, const NormArgs& norm, DropoutNormResult&)>
      dropout_norm;
  Kernel<"dropout_norm_backward", "A S I S S S A S S - A S A S S",
         void(const DropoutArgs& drop, const NormArgs& norm, const DropoutNormResult&,
              const DropoutNormGradients&)>
      dropout_norm_backward;
  // losses: [R], unscaled, 0 where the target is -1; d_hidden and d_weight are written for the sum
  // of scale * losses, both or neither
  Kernel<"cross_entropy", "A W I S A S",
         void(const CrossEntropyArgs&, Tensor losses, Tensor d_hidden, Tensor d_weight)>
      cross_entropy;

  Kernel<"sigmoid", "* *", void(const Tensor& z, Tensor y)> sigmoid;
  Kernel<"sigmoid_backward", "* * *", void(const Tensor& z, const Tensor& d_y, Sink d_z)>
      sigmoid_backward;
  Kernel<"log_sigmoid", "* *", void(const Tensor& z, Tensor y)> log_sigmoid;
  Kernel<"log_sigmoid_backward", "* * *", void(const Tensor& z, const Tensor& d_y, Sink d_z)>
      log_sigmoid_backward;
  // log F of the refined gate (Eq. 16) from the two pre-activations
  Kernel<"refined_gate", "* * *", void(const Tensor& z_g, const Tensor& z_r, Tensor log_f)>
      refined_gate;
  Kernel<"refined_gate_backward", "* * * * S * S",
         void(const Tensor& z_g, const Tensor& z_r, const Tensor& d_log_f, const LinearSink& d_z_g,
              const LinearSink& d_z_r)>
      refined_gate_backward;
  Kernel<"safe_exp", "* I S I A S S I", void(const SafeExpArgs&, SafeExpResult&)> safe_exp;
  Kernel<"safe_exp_backward", "* I S I A S S I A S S * S",
         void(const SafeExpArgs&, const SafeExpResult&, const Tensor& d_features,
              const Tensor& d_log_rho, const Tensor& d_m, const RowsSink& d_z, Sink d_m0)>
      safe_exp_backward;

  // The feature maps of the other linear attentions; equations in their files and in ops.h.
  Kernel<"head_linear", "A A * *", void(const HeadLinearArgs&, Tensor y)> head_linear;
  Kernel<"head_linear_backward", "A A * A * *",
         void(const HeadLinearArgs&, const Tensor& d_y, Sink d_x, Sink d_weight)>
      head_linear_backward;
  Kernel<"relu", "A A", void(const Tensor& x, Tensor y)> relu;
  Kernel<"relu_backward", "A A *", void(const Tensor& y, const Tensor& d_y, Sink d_x)>
      relu_backward;
  Kernel<"elu_plus_one", "A A", void(const Tensor& x, Tensor y)> elu_plus_one;
  Kernel<"elu_plus_one_backward", "A A *", void(const Tensor& y, const Tensor& d_y, Sink d_x)>
      elu_plus_one_backward;
  // y[r, f] = z[r, f] - |x[r]|^2 / 2; the gradient of z is d_y itself
  Kernel<"favor_exponent", "S * S", void(const Tensor& z, const Tensor& x, Tensor y)>
      favor_exponent;
  Kernel<"favor_exponent_backward", "* S *", void(const Tensor& x, const Tensor& d_y, Sink d_x)>
      favor_exponent_backward;
  Kernel<"hedgehog", "* A", void(const Tensor& z, bool joint, Tensor y)>
      hedgehog;  // [R, N] -> [R, 2N]
  Kernel<"hedgehog_backward", "A A *",
         void(const Tensor& y, bool joint, const Tensor& d_y, Sink d_z)>
      hedgehog_backward;
  Kernel<"cos_sin", "* A", void(const Tensor& z, Tensor y)> cos_sin;  // [R, N] -> [R, 2N]
  Kernel<"cos_sin_backward", "A A *", void(const Tensor& y, const Tensor& d_y, Sink d_z)>
      cos_sin_backward;
  Kernel<"dpfp", "A A", void(const Tensor& x, int64_t nu, Tensor y)> dpfp;  // [R, N] -> [R, 2 N nu]
  Kernel<"dpfp_backward", "A A A *",
         void(const Tensor& x, int64_t nu, const Tensor& y, const Tensor& d_y, Sink d_x)>
      dpfp_backward;

  // y = (1 - e^log_g) x, log_g [R, N] or [R, 1] for x [R, N]
  Kernel<"write_gate", "A * A", void(const Tensor& x, const Tensor& log_g, Tensor y)> write_gate;
  Kernel<"write_gate_backward", "A * A * *",
         void(const Tensor& x, const Tensor& log_g, const Tensor& d_y, Sink d_x, Sink d_log_g)>
      write_gate_backward;
  // y = x z sigma(z)
  Kernel<"swish_gate", "A A A", void(const Tensor& x, const Tensor& z, Tensor y)> swish_gate;
  Kernel<"swish_gate_backward", "A A A * *",
         void(const Tensor& x, const Tensor& z, const Tensor& d_y, Sink d_x, Sink d_z)>
      swish_gate_backward;
  // [R, V] -> [R, V + 1] with ones in the last column, and o[R, V + 1] -> o[:, :V] / o[:, V]
  Kernel<"append_one", "A A", void(const Tensor& v, Tensor y)> append_one;
  Kernel<"append_one_backward", "A *", void(const Tensor& d_y, Sink d_v)> append_one_backward;
  Kernel<"sum_norm", "A A", void(const Tensor& o, bool changes_sign, Tensor y)> sum_norm;
  Kernel<"sum_norm_backward", "A A A *",
         void(const Tensor& o, bool changes_sign, const Tensor& y, const Tensor& d_y, Sink d_o)>
      sum_norm_backward;

  Kernel<"linear_attention", "A A A A A S I S A S -",
         void(const LinearAttentionArgs&, RecurrenceResult&)>
      linear_attention;
  Kernel<"linear_attention_backward", "A A A A A S I S A S - A S * * * * * S S",
         void(const LinearAttentionArgs&, const RecurrenceResult&, const LinearAttentionGradients&)>
      linear_attention_backward;
  // T = 1, in place on args.state
  Kernel<"linear_attention_step", "A A A A A S I s A", void(const LinearAttentionArgs&, Tensor o)>
      linear_attention_step;
  // in place on args.m and args.state
  Kernel<"regla_step", "* * A A A A I S s s A", void(const ReglaStepArgs&, Tensor y)> regla_step;
  Kernel<"delta_rule", "A A A S I S A S -", void(const DeltaRuleArgs&, RecurrenceResult&)>
      delta_rule;
  Kernel<"delta_rule_backward", "A A A S I S A S - A S * * * S S",
         void(const DeltaRuleArgs&, const RecurrenceResult&, const DeltaRuleGradients&)>
      delta_rule_backward;
  // T = 1, in place on args.state
  Kernel<"delta_rule_step", "A A A S I s A", void(const DeltaRuleArgs&, Tensor o)> delta_rule_step;
  // log_sum: [B, T, H], kept for the backward pass
  Kernel<"softmax_attention", "A A A I A S",
         void(const SoftmaxAttentionArgs&, Tensor o, Tensor log_sum)>
      softmax_attention;
  Kernel<"softmax_attention_backward", "A A A I A S A * * *",
         void(const SoftmaxAttentionArgs&, const Tensor& o, const Tensor& log_sum,
              const Tensor& d_o, Sink d_q, Sink d_k, Sink d_v)>
      softmax_attention_backward;
  // in place on keys, values and used
  Kernel<"softmax_attention_step", "A A A a a i I A",
         void(const SoftmaxAttentionStepArgs&, Tensor o)>
      softmax_attention_step;

  // report [3] F64: loss (the sum of losses [m] F64), norm (the root of the sum of squares [n]
  // F64), factor = min(1, largest / norm), or 1 where largest is 0. The latch [1] I32 becomes 1
  // where loss or norm is not finite, and while it is 1 the factor is 0: nothing may change
  Kernel<"clip_factor", "D D I D",
         void(const Tensor& squares, const Tensor& losses, double largest, Tensor latch,
              Tensor report)>
      clip_factor;
  Kernel<"adamw", "s S s s a D D", void(const AdamWArgs&)> adamw;
  // to = factor[0] != 0 ? from : to, of any type; factor [1] F64
  Kernel<"commit", "D - -", void(const Tensor& factor, const Tensor& from, Tensor to)> commit;
  // x = flag[0] != 0 ? value : x, of any type; flag [1] I32
  Kernel<"restart", "I -", void(const Tensor& flag, double value, Tensor x)> restart;
  Kernel<"penalise", "S I i S", void(const PenaliseArgs&, Tensor y)> penalise;  // y like scores
  // ids [B] I32, -1 where a score of the row is not finite, be it one that is never drawn
  Kernel<"sample", "S I I", void(const SampleArgs&, Tensor ids)> sample;
  // sums [n] F64 of n tensors, 0 for one that is undefined
  Kernel<"sums_of_squares", "S D", void(const std::vector<Tensor>& x, Tensor sums)> sums_of_squares;
  // [1] I32: 1 if all of x is
  Kernel<"is_finite", "* I", void(const Tensor& x, Tensor finite)> is_finite;

  // What a decoder is told that learns from another.
  // as cross_entropy
  Kernel<"distillation", "A A A A I S A S",
         void(const DistillationArgs&, Tensor losses, Tensor d_hidden, Tensor d_weight)>
      distillation;
  // error [2] F64: |x - y|^2 over |y|^2, and what it is divided by: 1 where y is 0
  Kernel<"relative_error", "A A D", void(const Tensor& x, const Tensor& y, Tensor error)>
      relative_error;
  // d_x (+)= d_error[0] 2 (x - y) / error[1]
  Kernel<"relative_error_backward", "A A D D *",
         void(const Tensor& x, const Tensor& y, const Tensor& error, const Tensor& d_error,
              Sink d_x)>
      relative_error_backward;

  /// is_finite, waiting for the answer.
  bool all_finite(const Tensor& x) const {
    const Tensor finite = Tensor::empty({1}, DType::I32, x.device());
    is_finite(x, finite);
    return finite.values()[0] != 0;
  }
};

/// The kernels of a device; an Error when this build has none for it.
const KernelTable& kernels(Device device);

namespace cpu {
extern const KernelTable kTable;
}

}  // namespace regla
