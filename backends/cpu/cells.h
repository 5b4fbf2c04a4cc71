#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "backends/cells.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/triangular.h"
#include "backends/cpu/vector_math.h"
#include "core/parallel.h"
#include "core/recurrences/cell.h"

// Runs any cell token by token, heads in parallel. Backward computes the states before the tokens
// of a span again, from the one before the span, which forward kept.
namespace regla::cpu {

constexpr int64_t kSpan = 64;  // tokens between states that are kept

/// Sizes of all heads, and the room that one of them needs for a cell's inputs.
template <class Cell>
struct CellRun {
  int64_t steps, H, K, V, heads;
  const int32_t* reset;

  CellRun(const CellArgs& args, const Tensor& o, const Tensor& state)
      : steps(o.dim(1)), H(o.dim(2)), K(state.dim(2)), V(o.dim(3)), heads(o.dim(0) * H) {
    reset = args.reset ? args.reset.data<int32_t>() : nullptr;
  }

  recurrence::Sizes sizes() const { return {K, V, V}; }
  int64_t size() const { return K * V; }
  int64_t spans() const { return (steps + kSpan - 1) / kSpan; }
  int64_t row(int64_t n, int64_t t) const { return (n / H * steps + t) * H + n % H; }
  bool resets(int64_t n, int64_t t) const {
    return reset != nullptr && reset[n / H * steps + t] != 0;
  }
  int64_t keys() const { return static_cast<int64_t>(Cell::kKeys.all()) * K; }
  int64_t values() const { return static_cast<int64_t>(Cell::kValues.all()) * V; }
  static constexpr int64_t scalars() { return static_cast<int64_t>(Cell::kScalars.all()); }
  int64_t inputs() const { return keys() + values() + scalars(); }
};

/// The tensors of a cell, read as numbers of T, one token of a head at a time.
template <class T, class Cell>
class CellReader {
 public:
  explicit CellReader(const CellArgs& args) {
    for (size_t i = 0; i < keys_.size(); ++i) keys_[i] = Input<T>(args.keys[i]);
    for (size_t i = 0; i < values_.size(); ++i) values_[i] = Input<T>(args.values[i]);
    for (size_t i = 0; i < scalars_.size(); ++i) scalars_[i] = Input<T>(args.scalars[i]);
  }

  /// `room`: for CellRun::inputs() numbers.
  recurrence::Inputs<Cell, T> read(const CellRun<Cell>& n, int64_t row, T* room) const {
    recurrence::Places<Cell, T> at;
    Arena<T> arena = {room};
    for (size_t i = 0; i < keys_.size(); ++i) {
      at.keys[i] = numbers(keys_[i], is_decay(i, Cell::kKeys), row, n.K, arena);
    }
    for (size_t i = 0; i < values_.size(); ++i) {
      at.values[i] = numbers(values_[i], is_decay(i, Cell::kValues), row, n.V, arena);
    }
    T* scalars = arena.take(n.scalars());
    at.scalars = scalars;
    for (size_t i = 0; i < scalars_.size(); ++i) {
      Arena<T> one = {scalars + i};
      scalars[i] = *numbers(scalars_[i], is_decay(i, Cell::kScalars), row, 1, one);
    }
    return at.inputs();
  }

 private:
  static bool is_decay(size_t i, recurrence::Count count) {
    return i >= static_cast<size_t>(count.plain);
  }
  static const T* numbers(const Input<T>& in, bool decays, int64_t row, int64_t count,
                          Arena<T>& arena) {
    T* room = arena.take(count);
    if (!in) {
      std::fill_n(room, count, T(1));
      return room;
    }
    const T* x = in.read(row * count, count, room);
    if (!decays) return x;
    for (int64_t i = 0; i < count; ++i) room[i] = math::exp(x[i]);
    return room;
  }

  std::array<Input<T>, Cell::kKeys.all()> keys_;
  std::array<Input<T>, Cell::kValues.all()> values_;
  std::array<Input<T>, Cell::kScalars.all()> scalars_;
};

/// o, and the state after the last token; `result.state` may be `args.state`.
template <class Cell>
void run_cell(const CellArgs& args, RecurrenceResult& result) {
  for_sums_of(result.o, Cell::kName, [&](auto tag) {
    using T = decltype(tag);
    const CellRun<Cell> n(args, result.o, result.state);
    const CellReader<T, Cell> in(args);
    const int64_t size = n.size(), scratch = n.inputs() + (1 + Cell::kRoom) * n.V;
    if (args.keep && !result.kept) {
      result.kept = Tensor::empty({n.heads, n.spans(), n.K, n.V}, dtype_of<T>, result.o.device());
    }
    T* kept = args.keep ? result.kept.data<T>() : nullptr;
    Tensor scratches = Tensor::empty({threads(), scratch}, dtype_of<T>);
    const T* first = args.state ? args.state.data<T>() : nullptr;
    T *buffers = scratches.data<T>(), *states = result.state.data<T>();
    const Output<T> o(result.o);
    parallel_for(n.heads, 1, [&](int64_t begin, int64_t end) {
      T* out = buffers + thread_index() * scratch;
      T *room = out + n.V, *inputs = room + Cell::kRoom * n.V;
      for (int64_t i = begin; i < end; ++i) {
        T* S = states + i * size;
        if (first == nullptr) std::fill_n(S, size, T(0));
        if (first != nullptr && first != states) std::copy_n(first + i * size, size, S);
        for (int64_t t = 0; t < n.steps; ++t) {
          if (kept != nullptr && t % kSpan == 0) {
            std::copy_n(S, size, kept + (i * n.spans() + t / kSpan) * size);
          }
          if (n.resets(i, t)) std::fill_n(S, size, T(0));
          const int64_t row = n.row(i, t);
          Cell::step(n.sizes(), in.read(n, row, inputs), S, out, room);
          o.write(row * n.V, n.V, [=](int64_t j) { return out[j]; });
        }
      }
    });
  });
}

/// Where the gradients of one token go.
template <class T, class Cell>
class CellWriter {
 public:
  explicit CellWriter(const CellGradients& to) {
    for (size_t i = 0; i < keys_.size(); ++i) keys_[i] = Output<T>(to.d_keys[i]);
    for (size_t i = 0; i < values_.size(); ++i) values_[i] = Output<T>(to.d_values[i]);
    for (size_t i = 0; i < scalars_.size(); ++i) scalars_[i] = Output<T>(to.d_scalars[i]);
  }

  void write(const CellRun<Cell>& n, int64_t row,
             const recurrence::GradientPlaces<Cell, T>& from) const {
    const auto put = [&](const auto& outputs, const T* x, int64_t count) {
      for (const Output<T>& out : outputs) {
        if (out) out.write(row * count, count, [=](int64_t i) { return x[i]; });
        x += count;
      }
    };
    put(keys_, from.keys, n.K);
    put(values_, from.values, n.V);
    put(scalars_, from.scalars, 1);
  }

 private:
  std::array<Output<T>, Cell::kKeys.all()> keys_;
  std::array<Output<T>, Cell::kValues.all()> values_;
  std::array<Output<T>, Cell::kScalars.all()> scalars_;
};

/// Backward over one head; d_S [K, V] comes in as the gradient of the last state and leaves as that
/// of the first. `arena`: for the states of a span, inputs and their gradients, d_o and kRoom rows.
template <class T, class Cell>
void reverse_head(const CellRun<Cell>& n, const CellReader<T, Cell>& in, const Input<T>& d_o,
                  const CellWriter<T, Cell>& to, int64_t head, const T* kept, T* d_S,
                  Arena<T> arena) {
  const int64_t size = n.size();
  T *states = arena.take(kSpan * size), *inputs = arena.take(n.inputs());
  T *d_inputs = arena.take(n.inputs()), *out = arena.take(n.V);
  T* room = arena.take(Cell::kRoom * n.V);
  const recurrence::GradientPlaces<Cell, T> at = {d_inputs, d_inputs + n.keys(),
                                                  d_inputs + n.keys() + n.values(), 1};
  for (int64_t span = n.spans() - 1; span >= 0; --span) {
    const int64_t first = span * kSpan, count = std::min(kSpan, n.steps - first);
    for (int64_t c = 0; c < count; ++c) {
      T* S = states + c * size;
      std::copy_n(c == 0 ? kept + span * size : S - size, size, S);
      const auto move = [&](int64_t t) {
        Cell::step(n.sizes(), in.read(n, n.row(head, t), inputs), S, out, room);
      };
      if (c > 0) move(first + c - 1);
      if (n.resets(head, first + c)) std::fill_n(S, size, T(0));
    }
    for (int64_t c = count - 1; c >= 0; --c) {
      const int64_t row = n.row(head, first + c);
      std::fill_n(d_inputs, n.inputs(), T(0));
      Cell::step_backward(n.sizes(), in.read(n, row, inputs), states + c * size,
                          d_o.read(row * n.V, n.V, out), d_S, at.gradients(n.sizes()), room);
      to.write(n, row, at);
      if (n.resets(head, first + c)) std::fill_n(d_S, size, T(0));
    }
  }
}

template <class Cell>
void reverse_cell(const CellArgs& args, const RecurrenceResult& forward, const CellGradients& to) {
  for_sums_of(forward.o, Cell::kName, [&](auto tag) {
    using T = decltype(tag);
    const CellRun<Cell> n(args, forward.o, forward.state);
    const CellReader<T, Cell> in(args);
    const CellWriter<T, Cell> out(to);
    const Input<T> d_o(to.d_o);
    const Output<T> d_first(to.d_state0);
    const int64_t size = n.size();
    const int64_t scratch = kSpan * size + 2 * n.inputs() + (1 + Cell::kRoom) * n.V;
    Tensor scratches = Tensor::empty({threads(), scratch}, dtype_of<T>);
    Tensor d_states =
        to.d_state ? to.d_state.clone() : Tensor::zeros(forward.state.shape(), dtype_of<T>);
    const T* kept = forward.kept.data<T>();
    T *buffers = scratches.data<T>(), *d_S = d_states.data<T>();
    parallel_for(n.heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        T* d = d_S + i * size;
        reverse_head(n, in, d_o, out, i, kept + i * n.spans() * size, d,
                     Arena<T>{buffers + thread_index() * scratch});
        if (d_first) d_first.write(i * size, size, [=](int64_t j) { return d[j]; });
      }
    });
  });
}

/// Makes a cell known to the CPU (backends/cells.h).
template <class Cell>
bool add_cell() {
  AddedKernels<Cell>::cpu = {.forward = run_cell<Cell>, .backward = reverse_cell<Cell>};
  return true;
}

}  // namespace regla::cpu
