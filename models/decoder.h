#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "layers/dropout.h"
#include "layers/linear.h"
#include "layers/mixer.h"
#include "models/configuration.h"
#include "models/decoder_state.h"

namespace regla {

/// The residual stream, with what is to be added to it when it is next read.
struct Residual {
  Var sum;     // [B, T, D]
  Var branch;  // the same, or undefined
};

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
  bool is_without_mixer = false;  // adds nothing in the mixer's place

  Block(const ModelConfig& config, int64_t layer, const ParameterFactory& make);
  Residual chunked(Residual x, const Segment& segment, MixerState* state, DropoutSource* dropout);
  /// The same, bit by bit and all added up, keeping only x and the state for backward, which runs
  /// the block again.
  Var recomputed(const Var& x, const Segment& segment, MixerState* state, DropoutSource* dropout);
  Tensor step(const Tensor& x, const Tensor& positions, MixerState& state);
  void parameters(ParameterList& list);
};

/// The decoder: ids -> embedding -> blocks -> norm -> scores over the vocabulary.
class Decoder {
 public:
  /// Initial weights follow from `seed` alone.
  Decoder(const ModelConfig& config, uint64_t seed, DType activations = DType::F32,
          Device device = {})
      : Decoder(config, ParameterFactory(seed, activations, device)) {}
  /// Weights as `make` gives them, on its device.
  Decoder(const ModelConfig& config, const ParameterFactory& make);

  /// Ids as a tensor on the decoder's device, checked on the host on their way there: an Error for
  /// one that has no entry in the vocabulary.
  Tensor ids(const Shape& shape, const std::vector<int32_t>& ids) const;
  void check_ids(const std::vector<int32_t>& ids) const;
  /// ids [B, T] I32 -> the last hidden values [B, T, D], before the output projection. `state`,
  /// when given, is where the segment starts from and becomes where it ends, in tensors of its own;
  /// `dropout` null: none. Positions are those of the state's clock.
  Var hidden(const Tensor& ids, Segment segment = {}, DecoderState* state = nullptr,
             DropoutSource* dropout = nullptr);
  /// Mean cross-entropy in nats of predicting targets [B, T] (-1: not counted), over `count`
  /// targets (0: those that count here).
  Var loss(const Var& hidden, const Tensor& targets, int64_t count = 0);
  /// The cross-entropy of every target [B, T], without gradients.
  Tensor losses(const Var& hidden, const Tensor& targets);
  /// The mean of `distillation` from a teacher's scores, which has the same vocabulary, over
  /// `count` targets, where those are not -1.
  Var divergence(const Var& hidden, Decoder& teacher, const Tensor& teacher_hidden,
                 const Tensor& targets, double temperature, int64_t count);
  /// Scores [..., vocab] of hidden values [..., D], in the type of sums.
  Var logits(const Var& hidden);
  /// One token per sequence, for decoding: ids [B] -> scores [B, vocab]; the state moves on in
  /// place.
  Tensor step(const Tensor& ids, DecoderState& state);
  /// Makes room in a state for `tokens` steps at once, where it is known how many will follow:
  /// without, a state that grows doubles its room when there is no more.
  void reserve(DecoderState& state, int64_t tokens) const;
  /// How many steps can follow that do the same kernels on the same memory: so often may what one
  /// `step` asked for be done again without it. DecoderState::advance tells the state of such.
  int64_t steps_ahead(const DecoderState& state) const;

  /// Keeps of the matrices that tokens are multiplied with nothing but a copy in this type, for
  /// inference: BF16 halves what decoding reads for each token. An Error in F64; training a decoder
  /// whose weights are stored so is an Error too.
  void store_weights(DType dtype);
  /// What the matrices that tokens are multiplied with are read in.
  DType weights_type() { return output_weight().factor().dtype(); }

  /// From now on mixers of that type add nothing, not their bias either. Returns how many there
  /// are.
  int64_t leave_out_mixers(MixerType type);

  /// What it remembers before the first token.
  DecoderState initial_state(int64_t batch) const;
  /// The same in tensors whose shapes `hidden` leaves as they are (Mixer::initial_carried_state).
  DecoderState initial_carried_state(int64_t batch) const;
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
  /// Where its weights and states lie, and where it computes: ids and resets have to be there.
  Device device() const { return device_; }
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  void check_state(const DecoderState& state, int64_t batch) const;
  Parameter& output_weight() { return output_ ? *output_ : embedding_.weight; }

  ModelConfig config_;
  DType dtype_;
  Device device_;
  Embedding embedding_;
  std::vector<Block> blocks_;
  LayerNorm final_norm_;
  std::optional<Parameter> output_;  // [vocab, D]; absent with tie_embeddings
  ParameterList parameters_;
  bool recompute_blocks_ = false;
};

}  // namespace regla
