#pragma once

#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "autograd/ops/op.h"

// Ops that differ by nothing but their two kernels. Each is called as its forward kernel is. What
// comes out has the type of the first input unless another is given.
namespace regla {

/// Where the gradient of an input goes, as its kernel takes it.
struct SinkOf {
  Gradient& gradient;
  const Tensor& input;

  operator Sink() const { return gradient.sink(input); }  // NOLINT
  operator LinearSink() const {                           // NOLINT
    return gradient.linear_sink(input, input.rank() == 0 ? 1 : input.dim(-1));
  }
};

/// The name of an entry of the kernel table.
template <auto kEntry>
constexpr const char* kNameOf =
    std::remove_cvref_t<decltype(std::declval<const KernelTable&>().*kEntry)>::kName;

/// y = f(x, settings...), with the gradient found from x.
template <auto kForward, auto kBackward, class... Settings>
struct FromInput : Op {
  std::tuple<Settings...> settings;
  std::optional<DType> out;
  Tensor x;
  explicit FromInput(Settings... values, std::optional<DType> type = {})
      : settings(values...), out(type) {}
  const char* name() const override { return kNameOf<kForward>; }

  Tensors forward(const Tensors& in) override {
    x = in[0];
    Tensor y = Tensor::empty(x.shape(), out.value_or(x.dtype()), x.device());
    std::apply([&](auto... setting) { (kernels_of(x).*kForward)(x, setting..., y); }, settings);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const auto call = [&](auto... setting) {
      (kernels_of(x).*kBackward)(x, setting..., d_out[0], SinkOf{*d_in[0], x});
    };
    std::apply(call, settings);
  }

  Tensor* kept_input(size_t) override { return &x; }
  bool is_cheap() const override { return true; }
};

/// y = f(a, b), of the shape of a, with the gradients found from both.
template <auto kForward, auto kBackward>
struct FromTwoInputs : Op {
  std::optional<DType> out;
  Tensor a, b;
  explicit FromTwoInputs(std::optional<DType> type = {}) : out(type) {}
  const char* name() const override { return kNameOf<kForward>; }

  Tensors forward(const Tensors& in) override {
    a = in[0];
    b = in[1];
    Tensor y = Tensor::empty(a.shape(), out.value_or(a.dtype()), a.device());
    (kernels_of(a).*kForward)(a, b, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    (kernels_of(a).*kBackward)(a, b, d_out[0], SinkOf{*d_in[0], a}, SinkOf{*d_in[1], b});
  }

  Tensor* kept_input(size_t input) override { return input == 0 ? &a : &b; }
  bool is_cheap() const override { return true; }
};

/// y = f(x, settings...), its inner axis `kWider` times that of x, with the gradient found from y.
template <auto kForward, auto kBackward, int64_t kWider, class... Settings>
struct FromOutput : Op {
  std::tuple<Settings...> settings;
  std::optional<DType> out;
  Shape from;
  Tensor y;
  explicit FromOutput(Settings... values, std::optional<DType> type = {})
      : settings(values...), out(type) {}
  const char* name() const override { return kNameOf<kForward>; }

  Tensors forward(const Tensors& in) override {
    const Tensor& x = in[0];
    from = x.shape();
    const Shape to = kWider == 1 ? from : from.with(-1, kWider * from[-1]);
    y = Tensor::empty(to, out.value_or(x.dtype()), x.device());
    std::apply([&](auto... setting) { (kernels_of(x).*kForward)(x, setting..., y); }, settings);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const auto call = [&](auto... setting) {
      (kernels_of(y).*kBackward)(y, setting..., d_out[0], d_in[0]->sink(from, y.device()));
    };
    std::apply(call, settings);
  }
};

}  // namespace regla
