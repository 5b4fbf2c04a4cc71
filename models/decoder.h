#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "layers/dropout.h"
#include "layers/linear.h"
#include "layers/mixer.h"
#include "models/configuration.h"

namespace regla {

/// One mixer state per layer.
using DecoderState = std::vector<MixerState>;

/// A pre-norm block (docs/math.md, "The decoder"):
///     x += mixer(norm1(x));  x += mlp(norm2(x))            sequential, the paper's
///     x += mixer(norm1(x)) + mlp(norm2(x))                 parallel_residual, Pythia's
struct Block {
  std::string name;
  LayerNorm norm1;
  std::unique_ptr<Mixer> mixer;
  LayerNorm norm2;
  Mlp mlp;
  bool parallel_residual;

  Block(const ModelConfig& config, int64_t layer, const ParameterFactory& make);
  Var chunked(const Var& x, const Segment& segment, MixerState* state, DropoutSource* dropout);
  /// The same, bit by bit, keeping only x and the state for backward, which runs the block again.
  Var recomputed(const Var& x, const Segment& segment, MixerState* state, DropoutSource* dropout);
  Tensor step(const Tensor& x, MixerState& state);
  void parameters(ParameterList& list);
};

/// The decoder: ids -> embedding -> blocks -> norm -> scores over the vocabulary.
class Decoder {
 public:
  /// Initial weights follow from `seed` alone.
  Decoder(const ModelConfig& config, uint64_t seed, DType activations = DType::F32,
          Device device = {})
      : Decoder(config, ParameterFactory(seed, activations, device)) {}
  /// Weights as `make` gives them.
  Decoder(const ModelConfig& config, const ParameterFactory& make);

  /// ids [B, T] I32 -> the last hidden values [B, T, D], before the output projection. `state`,
  /// when given, is carried; `dropout` null: none.
  Var hidden(const Tensor& ids, Segment segment = {}, DecoderState* state = nullptr,
             DropoutSource* dropout = nullptr);
  /// Mean cross-entropy in nats of predicting targets [B, T] (-1: not counted), over `count`
  /// targets (0: those that count here).
  Var loss(const Var& hidden, const Tensor& targets, int64_t count = 0);
  /// The cross-entropy of every target [B, T], without gradients.
  Tensor losses(const Var& hidden, const Tensor& targets);
  /// Scores [..., vocab] of hidden values [..., D], in the type of sums.
  Var logits(const Var& hidden);
  /// One token per sequence, for decoding: ids [B] -> scores [B, vocab]; the state moves on in
  /// place.
  Tensor step(const Tensor& ids, DecoderState& state);

  /// Keeps of the matrices that tokens are multiplied with nothing but a copy in this type, for
  /// inference: BF16 halves what decoding reads for each token. An Error in F64; training a decoder
  /// whose weights are stored so is an Error too.
  void store_weights(DType dtype);
  /// What the matrices that tokens are multiplied with are read in.
  DType weights_type() { return output_weight().factor().dtype(); }

  DecoderState initial_state(int64_t batch) const;
  /// Mixer::state_after of every layer.
  DecoderState state_after(int64_t batch, int64_t tokens) const;
  /// Whether backward runs each block again instead of keeping what it computed: less memory, a
  /// quarter more time, the same bits.
  void recompute_blocks(bool on) { recompute_blocks_ = on; }
  /// Sets what depends on the number of updates done and is not trained: random features with
  /// `redraw_every`. A new decoder stands at 0.
  void begin_step(int64_t updates_done);
  /// Every parameter, in the order of the computation. Names are those of the checkpoint.
  const ParameterList& parameters() const { return parameters_; }
  const ModelConfig& config() const { return config_; }
  /// The type of activations.
  DType dtype() const { return dtype_; }
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  void check_state(const DecoderState& state) const;
  Parameter& output_weight() { return output_ ? *output_ : embedding_.weight; }

  ModelConfig config_;
  DType dtype_;
  Embedding embedding_;
  std::vector<Block> blocks_;
  LayerNorm final_norm_;
  std::optional<Parameter> output_;  // [vocab, D]; absent with tie_embeddings
  ParameterList parameters_;
  bool recompute_blocks_ = false;
};

}  // namespace regla
