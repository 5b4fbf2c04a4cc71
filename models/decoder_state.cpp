#include "models/decoder_state.h"

#include <utility>

#include "backends/kernels.h"
#include "core/check.h"

namespace regla {

void DecoderState::for_each(const std::function<void(const std::string&, Tensor&)>& f) {
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    layers[layer].for_each([&](const std::string& name, Tensor& tensor) {
      f(std::to_string(layer) + "." + name, tensor);
    });
  }
  if (position) f("position", position);
}

void DecoderState::check_values(const std::string& where, int64_t tokens) const {
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    layers[layer].check_values(where + ", layer " + std::to_string(layer) + ":");
  }
  if (!position) return;
  for (const double value : position.values()) {
    check(value >= 0 && value <= static_cast<double>(tokens), where,
          ": expected position from 0 to ", tokens, ", got ", value);
  }
}

DecoderState DecoderState::detached() const {
  DecoderState copy = *this;
  for (MixerState& layer : copy.layers) layer = layer.detached();
  return copy;
}

DecoderState DecoderState::clone() const {
  DecoderState copy = detached();
  copy.for_each([](const std::string&, Tensor& tensor) { tensor = tensor.clone(); });
  return copy;
}

DecoderState DecoderState::rows(int64_t begin, int64_t end) const {
  DecoderState part = detached();
  part.for_each([=](const std::string&, Tensor& tensor) { tensor = tensor.slice(begin, end); });
  return part;
}

DecoderState DecoderState::joined(std::vector<DecoderState> parts, int64_t room) {
  DecoderState all;
  int64_t sequences = 0;
  for (const DecoderState& part : parts) sequences += part.position.dim(0);
  const Tensor& first = parts.at(0).position;
  all.position = Tensor::empty({sequences}, first.dtype(), first.device());
  int64_t at = 0;
  for (const DecoderState& part : parts) {
    const int64_t count = part.position.dim(0);
    all.position.slice(at, at + count).copy_from(part.position);
    at += count;
  }
  for (size_t layer = 0; layer < parts[0].layers.size(); ++layer) {
    std::vector<MixerState> of_layer;
    for (DecoderState& part : parts) of_layer.push_back(std::move(part.layers.at(layer)));
    all.layers.push_back(MixerState::joined(std::move(of_layer), room));
  }
  return all;
}

int64_t DecoderState::bytes() const {
  int64_t bytes = 0;
  for (const MixerState& layer : layers) {
    for (const Var& var : layer.list()) bytes += var.defined() ? var.value.bytes() : 0;
  }
  return bytes;
}

void DecoderState::copy_from(const DecoderState& other) {
  with_those_of(other, [](Tensor& to, const Tensor& from) { to.copy_from(from); });
}

void DecoderState::commit(const Tensor& factor, const DecoderState& other) {
  with_those_of(other, [&](Tensor& to, const Tensor& from) {
    kernels(factor.device()).commit(factor, from, to);
  });
}

void DecoderState::with_those_of(const DecoderState& other,
                                 const std::function<void(Tensor&, const Tensor&)>& f) {
  std::vector<std::pair<std::string, Tensor>> values;
  DecoderState source = other;
  source.for_each(
      [&](const std::string& name, Tensor& tensor) { values.emplace_back(name, tensor); });
  size_t next = 0;
  for_each([&](const std::string& name, Tensor& tensor) {
    check(next < values.size() && values[next].first == name,
          "[decoder] expected a state with the tensor ", name);
    f(tensor, values[next++].second);
  });
  check(next == values.size(), "[decoder] expected a state of ", next, " tensors, got ",
        values.size());
}

void DecoderState::restart(const Tensor& flag) {
  for (MixerState& layer : layers) layer.restart(flag);
  if (position) kernels(flag.device()).restart(flag, 0, position);
}

void DecoderState::advance(int64_t steps) {
  for (MixerState& layer : layers) {
    if (layer.used) layer.length += steps;
  }
}

}  // namespace regla
