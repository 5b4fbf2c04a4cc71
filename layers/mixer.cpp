#include "layers/mixer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "backends/copies.h"
#include "backends/kernels.h"
#include "layers/mixers/delta_net.h"
#include "layers/mixers/linear_attention.h"
#include "layers/mixers/softmax_attention.h"

namespace regla {

void MixerState::for_each(const std::function<void(const std::string&, Tensor&)>& f) {
  for (Var* cache : {&keys, &values}) {
    if (cache->defined() && cache->dim(1) != length) *cache = copied_rows(cache->value, 0, length);
  }
  used = {};
  const auto visit = [&](const char* name, Tensor& tensor) {
    if (tensor.defined()) f(name, tensor);
  };
  visit("S", S.value);
  visit("m", m.value);
  visit("keys", keys.value);
  visit("values", values.value);
}

void MixerState::check_values(const std::string& where) const {
  for (const auto& [name, tensor] : {std::pair("S", S.value), std::pair("keys", keys.value),
                                     std::pair("values", values.value)}) {
    check(!tensor || kernels(tensor.device()).all_finite(tensor), where, " ", name,
          " holds numbers that are not finite");
  }
  if (!m.defined()) return;
  for (const double maximum : m.value.values()) {  // minus infinity: nothing seen
    check(maximum < std::numeric_limits<double>::infinity(), where,
          " expected m below infinity, got ", maximum);
  }
}

MixerState MixerState::detached() const {
  MixerState copy = *this;
  for (Var* var : {&copy.S, &copy.m, &copy.keys, &copy.values}) var->index = -1;
  return copy;
}

MixerState MixerState::clone() const {
  MixerState copy = detached();
  copy.for_each([](const std::string&, Tensor& tensor) { tensor = tensor.clone(); });
  return copy;
}

MixerState MixerState::joined(std::vector<MixerState> parts, int64_t room) {
  MixerState all;
  for (MixerState& part : parts) {
    part.for_each([](const std::string&, Tensor&) {});
    all.length = std::max(all.length, part.length);
  }
  for (Var MixerState::*member :
       {&MixerState::S, &MixerState::m, &MixerState::keys, &MixerState::values}) {
    if (!(parts.at(0).*member).defined()) continue;
    const bool is_cache = member == &MixerState::keys || member == &MixerState::values;
    const Tensor& first = (parts[0].*member).value;
    int64_t sequences = 0, at = 0;
    for (const MixerState& part : parts) sequences += (part.*member).dim(0);
    Shape shape = first.shape().with(0, sequences);
    if (is_cache) shape = shape.with(1, all.length + room);
    const Tensor joined = Tensor::empty(shape, first.dtype(), first.device());
    for (const MixerState& part : parts) {
      const Tensor& from = (part.*member).value;
      Tensor to = joined.slice(at, at + from.dim(0));
      at += from.dim(0);
      if (is_cache) {
        const int64_t empty = all.length - part.length;
        const Tensor zeros =
            Tensor::zeros(from.shape().with(1, empty), from.dtype(), from.device());
        copy_rows(zeros, 0, empty, to, 0);
        copy_rows(from, 0, part.length, to, empty);
      } else {
        to.copy_from(from);
      }
    }
    all.*member = joined;
  }
  return all;
}

void MixerState::restart(const Tensor& flag) {
  const KernelTable& on = kernels(flag.device());
  for (const Var* var : {&S, &keys, &values}) {
    if (var->defined()) on.restart(flag, 0, var->value);
  }
  if (m.defined()) on.restart(flag, -std::numeric_limits<double>::infinity(), m.value);
}

MixerState MixerState::of(std::span<const Var> list, int64_t length) {
  return {
      .S = list[0], .m = list[1], .keys = list[2], .values = list[3], .length = length, .used = {}};
}

std::unique_ptr<Mixer> make_mixer(const MixerConfig& config, const MixerSizes& sizes,
                                  const ParameterFactory& make, const std::string& name) {
  check_combination(config, sizes.hidden / sizes.heads, name);
  switch (config.type) {
    case MixerType::Softmax:
      return std::make_unique<SoftmaxAttentionMixer>(config, sizes, make, name);
    case MixerType::DeltaNet:
      return std::make_unique<DeltaNetMixer>(config, sizes, make, name);
    default:  // the others are one mixer under other settings
      return std::make_unique<LinearAttentionMixer>(config, sizes, make, name);
  }
}

Tensor segment_positions(int64_t batch, int64_t steps, const Tensor& reset, Tensor& next,
                         Device device) {
  check(!reset || reset.shape() == Shape{batch, steps}, "[mixer] expected a reset mask ",
        Shape{batch, steps}, ", got ", reset.shape());
  check(!next || next.shape() == Shape{batch}, "[mixer] expected the positions of ", batch,
        " sequences, got ", next.shape());
  const Tensor positions = Tensor::empty({batch, steps}, DType::I32, device);
  const Tensor after = Tensor::empty({batch}, DType::I32, device);
  kernels(device).positions(next, reset, positions, after);
  next = after;
  return positions;
}

}  // namespace regla
