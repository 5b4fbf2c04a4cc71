#pragma once

#include <optional>
#include <vector>

#include "autograd/tape.h"
#include "backends/maximum.h"
#include "backends/rotation.h"

// Every differentiable function, on one page; each has a file of its name in autograd/ops/. Sizes
// as in backends/kernels.h, `...` any outer axes. Wrong shapes or types are an Error that begins
// with the op's name in brackets. What depends on a NaN is NaN; masks, dropout's and that of later
// tokens, may be factors of 0, so that it reaches further than numbers do.
//
// Inputs are activations (A, backends/kernels.h) but for gains, biases, states and what there is
// one of per head, which have the type of sums (S). Norms, gates, `add`, `scale`, and maps with an
// exponential take either. `out`, A or S, is the type of the result where it is not to be that of
// the first input.

namespace regla {

/// a + b, equal shapes, in the type of sums.
Var add(const Var& a, const Var& b);
/// factor * x
Var scale(const Var& x, double factor, std::optional<DType> out = {});
/// The same elements under another shape.
Var reshape(const Var& x, const Shape& shape);

/// x weight^T + bias: [..., in] -> [..., out], or [..., heads, out / heads] where heads are asked
/// for; weight [out, in], bias [out] or undefined. Beside an x in F32 the weight may be stored in
/// BF16, for inference: nothing on a tape.
Var linear(const Var& x, const Var& weight, const Var& bias, std::optional<DType> out = {},
           int64_t heads = 0);
/// A norm before `linear_step`; without a gain there is none.
struct StepNorm {
  Var gain, bias;  // [D]
  double epsilon = 0;
};
/// A weight [out, in] and a bias [out] or undefined that `linear_step` reads, and what it gives.
struct StepWeight {
  Var weight, bias;
  DType out;
};
enum class Gelu { Erf, Tanh };
/// One row for each sequence that is decoded, without gradients: x [B, in] or its layer norm, in
/// `type`, through each of the weights, then GELU and what it is added to [B, out] where they are
/// given: the same as `layer_norm`, `linear`, `gelu` and `add`, which are one kernel here.
Tensors linear_step(const Var& x, const StepNorm& norm, const std::vector<StepWeight>& weights,
                    DType type, std::optional<Gelu> activation = {}, const Var& residual = {});
/// Rows of `table` [vocab, D] by id: ids [...] I32 -> [..., D] in the type of sums.
Var embedding(const Tensor& ids, const Var& table);

/// LayerNorm over the inner axis; gain and bias [N].
Var layer_norm(const Var& x, const Var& gain, const Var& bias, double epsilon,
               std::optional<DType> out = {});
/// The stable norm of a mixer's output [B, T, H, V] with a gain per head [H, V]: RMSNorm, or
/// LayerNorm without bias when `center`.
Var head_norm(const Var& x, const Var& gain, double epsilon, bool center,
              std::optional<DType> out = {});
Var softmax(const Var& x, std::optional<DType> out = {});

Var gelu(const Var& x, Gelu kind);

/// Names the random numbers of one dropout: element i of x takes number `first + i` of the stream
/// of this place in this step.
struct DropoutKey {
  uint64_t seed, place;  // place < 65536
  int64_t first;
  Tensor step = {};  // [1] I32, or undefined (0)
};
/// Zeroes each element with probability `rate` and divides the others by 1 - rate.
Var dropout(const Var& x, double rate, const DropoutKey& key);
/// residual + dropout(x), equal shapes, in the type of sums, as the residual is.
Var add_dropout(const Var& residual, const Var& x, double rate, const DropoutKey& key);

/// sum = residual + dropout(x), equal shapes, and the layer_norm of the sum, of the type of x: one
/// pass, whose results are kept.
struct SumAndNorm {
  Var sum, norm;
};
SumAndNorm dropout_norm(const Var& residual, const Var& x, double rate, const DropoutKey& key,
                        const Var& gain, const Var& bias, double epsilon);

/// Rotary position embedding (Su et al. 2024) of x [B, T, H, K].
Var rope(const Var& x, const Rotation& rotation);

/// Mean cross-entropy (nats) of softmax(hidden weight^T) against targets. hidden [..., D], weight
/// [vocab, D], targets [...] I32 with -1 for rows that do not count. The mean is over `count` rows;
/// 0: over those that count here. Result [1] F64.
Var cross_entropy(const Var& hidden, const Var& weight, const Tensor& targets, int64_t count = 0);
/// The same per row, without gradients: [...]. Rows with target -1 are 0. The weight as in
/// `linear`.
Tensor cross_entropy_rows(const Tensor& hidden, const Tensor& weight, const Tensor& targets);

/// temperature^2 times the mean of KL(p || q) (nats; Hinton et al. 2015): q is softmax(hidden
/// weight^T / temperature), p the same of a teacher, whose hidden [..., E] and weight [vocab, E]
/// are constants. Rows and their mean as of `cross_entropy`, over `count` rows. Result [1] F64.
Var distillation(const Var& hidden, const Var& weight, const Tensor& teacher_hidden,
                 const Tensor& teacher_weight, const Tensor& targets, double temperature,
                 int64_t count);
/// |x - y|^2 / |y|^2 over all elements of x and of y, a constant of its shape and type; |x|^2 where
/// y is 0. Result [1] F64.
Var relative_error(const Var& x, const Tensor& y);

/// sigma(z) = 1 / (1 + e^-z)
Var sigmoid(const Var& z);
/// log sigma(z), the log of the vanilla gate.
Var log_sigmoid(const Var& z, std::optional<DType> out = {});
/// log F of the refined gate (Eq. 16): F = g (g + 2r(1-g)), g = sigma(z_g), r = sigma(z_r).
Var refined_gate(const Var& z_g, const Var& z_r, std::optional<DType> out = {});

/// The safe exponential feature map (docs/math.md, "The feature map").
struct SafeExp {
  Var features;  // [B, T, H, K]
  Var log_rho;   // [B, T, H]: the decay that the moving maximum causes; undefined for Token
  Var m;         // [B, H]: the maximum after the last token; undefined for Token
};
/// z [B, T, H, K], which is turned first; m0 [B, H] the maximum so far or undefined; reset [B, T]
/// I32 or undefined.
SafeExp safe_exp(const Var& z, const Var& m0, const Tensor& reset, Maximum maximum, double scale,
                 std::optional<DType> out = {}, const Rotation& rotation = {});

/// A matrix of its own per head: x [B, T, H, N], weight [H F, N], bias [H F] or undefined ->
/// [B, T, H, F].
Var head_linear(const Var& x, const Var& weight, const Var& bias, std::optional<DType> out = {});
/// max(x, 0)
Var relu(const Var& x);
/// elu(x) + 1 (Katharopoulos et al. 2020), as x > 0 ? x + 1 : e^x.
Var elu_plus_one(const Var& x);
/// z - |x|^2 / 2: the exponent of FAVOR+ (Choromanski et al. 2021), z [B, T, H, F] = W x of
/// x [B, T, H, N].
Var favor_exponent(const Var& z, const Var& x);
/// HedgeHog (Zhang et al. 2024): z [..., N] -> [softmax(z), softmax(-z)] [..., 2N], or
/// softmax([2z, -2z]) when `joint`.
Var hedgehog(const Var& z, bool joint, std::optional<DType> out = {});
/// Random Fourier features (Peng et al. 2021): z [..., N] -> [sin z, cos z] [..., 2N].
Var cos_sin(const Var& z, std::optional<DType> out = {});
/// DPFP (Schlag et al. 2021): with x' = [relu(x), relu(-x)], x [..., N] -> the products
/// x' * roll(x', i) for i = 1..nu, divided by their sum + 1e-5 [..., 2 N nu].
Var dpfp(const Var& x, int64_t nu);

/// (1 - e^log_g) x: what is written where a gate keeps e^log_g. x [B, T, H, N], log_g [B, T, H, N]
/// or one per head, [B, T, H].
Var write_gate(const Var& x, const Var& log_g);
/// x swish(z) = x z sigma(z), equal shapes.
Var swish_gate(const Var& x, const Var& z);

/// v [..., V] with a column of ones behind, [..., V + 1]: what the normaliser of a sum norm writes.
Var append_one(const Var& v);
/// The sum norm (Eq. 2, 5): o [..., V + 1] -> its first V columns divided by the last, x, kept away
/// from 0: max(x, 1e-6), or sign(x) max(|x|, 1) where features change sign.
Var sum_norm(const Var& o, bool changes_sign);

/// Decays of a linear attention as logs, each at most 0 and each optional.
struct LogDecays {
  Var key;     // [B, T, H, K]: a
  Var value;   // [B, T, H, V]: b
  Var scalar;  // [B, T, H]
};
/// What either recurrence gives.
struct Recurrence {
  Var o;      // [B, T, H, V]
  Var state;  // [B, H, K, V] after the last token
};
/// The gated recurrence (docs/math.md, "The recurrence", "Three forms") over q, k [B, T, H, K] and
/// u [B, T, H, V] from `state` [B, H, K, V] (undefined: 0), `chunk` tokens at a time (0: the
/// backend's choice). reset [B, T] I32 or undefined: 1 empties the state before that token.
Recurrence linear_attention(const Var& q, const Var& k, const Var& u, const LogDecays& decays,
                            const Tensor& reset, const Var& state, int64_t chunk);
/// One token (T = 1) for decoding, without gradients: `state` is updated in place.
Tensor linear_attention_step(const Var& q, const Var& k, const Var& u, const LogDecays& decays,
                             const Tensor& reset, Tensor state);

/// One token of ReGLA as its projections give it: [B, 1, H, K] and [B, 1, H, V].
struct ReglaToken {
  Var z_q, z_k, v, z_g, z_r;
  Var z_o;  // of the output gate, or undefined
  Rotation rotation;
  double scale;  // of the scores
};
/// The norm of heads behind a mixer; without a gain there is none.
struct HeadNorm {
  Var gain;  // [H, V]
  double epsilon = 0;
  bool center = false;
};
/// One token for decoding, without gradients: `safe_exp` of queries and keys, `refined_gate`,
/// `linear_attention_step`, `head_norm` and `swish_gate`, which are one kernel here -> [B, 1, H,
/// V]. The maximum m [B, H] of the keys and the state [B, H, K, V] are updated in place.
Tensor regla_step(const ReglaToken& token, const HeadNorm& norm, const Tensor& m,
                  const Tensor& state);

/// The delta rule (Eq. 8) S <- S - g k (k^T S) + g k v^T, o = S^T q over q, k [B, T, H, K] and v
/// [B, T, H, V] with write strengths g [B, T, H]; state, reset and chunk as above.
Recurrence delta_rule(const Var& q, const Var& k, const Var& v, const Var& g, const Tensor& reset,
                      const Var& state, int64_t chunk);
/// One token (T = 1) for decoding, without gradients: `state` is updated in place.
Tensor delta_rule_step(const Var& q, const Var& k, const Var& v, const Var& g, const Tensor& reset,
                       Tensor state);

/// Causal softmax attention (Eq. 1): q [B, T, H, K]; k, v [B, S, H, .] of which the last T belong
/// to the queries. first [B, T] I32 or undefined: keys before it are hidden. window 0: no limit.
Var softmax_attention(const Var& q, const Var& k, const Var& v, const Tensor& first, int64_t window,
                      double scale);
/// Keys and values of earlier tokens, with room behind them.
struct KeyValueCache {
  Tensor keys, values;  // [B, capacity, H, K or V]
  Tensor used;          // [1] I32: entries in use, fewer than the capacity
};
/// One token (T = 1) for decoding, without gradients: query and key turn, key and value are put
/// into the cache, and the token sees them and as many entries before as its position [B, 1] says.
Tensor softmax_attention_step(const Var& q, const Var& k, const Var& v, const KeyValueCache& cache,
                              const Rotation& rotation, int64_t window, double scale);

/// a [B, S, ...] followed by b [B, T, ...] along the second axis; an undefined a is empty.
Var concatenate(const Var& a, const Var& b);
/// The last `count` entries of the second axis.
Var last(const Var& x, int64_t count);

}  // namespace regla
