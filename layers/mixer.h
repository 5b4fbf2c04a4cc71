#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "autograd/ops.h"
#include "layers/linear.h"
#include "layers/mixer_config.h"
#include "layers/parameters.h"

namespace regla {

/// What a mixer remembers of the tokens before: one value, which can be copied, saved and restored.
/// Members that a mixer does not use stay undefined; the batch is the outermost axis of all but
/// `used`.
struct MixerState {
  Var S;               // [B, H, K, V] state of a linear attention; V + 1 with a sum norm
  Var m;               // [B, H] running maximum of the keys; -infinity: nothing seen
  Var keys, values;    // [B, capacity, H, .] key-value cache of softmax attention
  int64_t length = 0;  // entries of the cache that are in use, as the host plans them
  Tensor used;         // [1] I32: the same, as kernels count them; where there is room for `step`

  /// Calls `f(name, tensor)` for every tensor that is defined, to save it. The cache is cut to the
  /// entries in use first.
  void for_each(const std::function<void(const std::string&, Tensor&)>& f);
  /// An Error, which begins with `where`, for numbers that no token leaves behind, since they are
  /// not finite.
  void check_values(const std::string& where) const;
  /// The same values cut off from the tape: truncated back-propagation.
  MixerState detached() const;
  MixerState clone() const;
  /// The sequences of several states, one after the other, in memory of their own. Caches end
  /// together, as steps want them: of a shorter one the beginning is empty, and nobody sees it.
  /// Behind them is room for a segment of `room` tokens, which `chunked` then writes there.
  static MixerState joined(std::vector<MixerState> parts, int64_t room = 0);
  /// Makes a carried state what nothing seen leaves behind, in place, where flag [1] I32 is 1.
  void restart(const Tensor& flag);
  /// The Vars as a list, undefined where one is absent, and the state of such a list.
  Vars list() const { return {S, m, keys, values}; }
  static MixerState of(std::span<const Var> list, int64_t length);
};

/// Is called with tensors that a layer computes on its way, by name, while it computes them:
///
///     mixer_input, mixer_output   [B, T, D]          of the whole mixer, after all below
///     query, key                  [B, T, H, qk_dim]  rotated, before the feature map
///     gate, gate_key, gate_value  [B, T, outputs]    z_g, before the sigmoid; one gate, or one per
///                                                    axis
///     refine...                   [B, T, outputs]    z_r of that gate, if it is a refined one
///     log_decay...                [B, T, outputs]    log F of that gate, after its temperature
///
/// A gate's three names come in this order. The tensor is the layer's own: read it, do not write.
using Observer = std::function<void(int64_t layer, std::string_view name, const Tensor& value)>;

/// How a segment of tokens is to be processed.
struct Segment {
  Tensor reset = {};                   // [B, T] I32 or undefined: 1 forgets all before this token
  int64_t chunk = 0;                   // tokens per chunk; 0: as configured
  const Observer* observer = nullptr;  // for analyses; nothing is done for it where it is null
  int64_t layer = 0;                   // what the observer is told; the decoder counts
  Tensor positions = {};               // [B, T] I32, of segment_positions; the decoder's clock, or
                                       // undefined: from 0 on, and again where `reset` says so

  void show(std::string_view name, const Var& x) const {
    if (observer && x.defined()) (*observer)(layer, name, x.value);
  }
};

/// The contract of all attention variants. `chunked` and `step` are the same function of the
/// tokens.
class Mixer {
 public:
  virtual ~Mixer() = default;

  /// x [B, T, D] -> [B, T, D]. `state`, when given, is where the segment starts from and becomes
  /// where it ends; without one it starts from nothing. chunk = T is the parallel form, 1 the
  /// recurrence.
  virtual Var chunked(const Var& x, const Segment& segment, MixerState* state) = 0;
  /// One token for decoding, without gradients: [B, D] at positions [B, 1] I32 -> [B, D]. The
  /// state moves on in place. As long as steps_ahead says so its tensors stay where they are, and
  /// what differs from the step before is read from them, not by the host. An Error where
  /// check_step_form says so.
  virtual Tensor step(const Token& token, const Tensor& positions, MixerState& state) = 0;
  /// What it remembers before the first token.
  virtual MixerState initial_state(int64_t batch) const = 0;
  /// The same in tensors whose shapes `chunked` leaves as they are, however many tokens it has
  /// seen: what training carries and saves. An Error for a cache without a bound.
  virtual MixerState initial_carried_state(int64_t batch) const { return initial_state(batch); }
  /// Makes room in a state of `batch` sequences for `tokens` steps; with a window for no more than
  /// it needs. A mixer whose state grows says so here.
  virtual void reserve(MixerState& state, int64_t batch, int64_t tokens) const {
    static_cast<void>(state), static_cast<void>(batch), static_cast<void>(tokens);
  }
  /// How many steps can follow before the state takes other memory or moves within it.
  virtual int64_t steps_ahead(const MixerState& state) const {
    static_cast<void>(state);
    return std::numeric_limits<int64_t>::max();
  }
  virtual void parameters(ParameterList& list) = 0;
  /// Sets what depends on the number of updates done and is not trained: random features that are
  /// drawn again.
  virtual void begin_step(int64_t updates_done) { static_cast<void>(updates_done); }

  /// Floating-point operations per token beyond the products with weights, forward, when `length`
  /// tokens are processed as one segment.
  virtual double flops_per_token(int64_t length) const = 0;
  /// Bytes of state per sequence after `length` tokens beside activations of the given type.
  virtual int64_t state_bytes(int64_t length, DType dtype) const = 0;
};

/// Sizes and initialisation that a mixer gets from the decoder around it.
struct MixerSizes {
  int64_t hidden;           // D
  int64_t heads;            // H; V = D / H
  double deviation;         // of initial weights
  double output_deviation;  // of the output projection
};

/// The only place that knows all mixers by name. Parameters are called `name`.*.
std::unique_ptr<Mixer> make_mixer(const MixerConfig& config, const MixerSizes& sizes,
                                  const ParameterFactory& make, const std::string& name);

/// Positions [B, T] I32 of a segment that starts at `next` [B] (undefined: 0) and begins again at 0
/// where `reset` says so; `next` becomes the position after the segment, a tensor of its own.
Tensor segment_positions(int64_t batch, int64_t steps, const Tensor& reset, Tensor& next,
                         Device device = {});

}  // namespace regla
